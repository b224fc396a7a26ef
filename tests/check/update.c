/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <string.h>
#include <cmocka.h>

#include "base/cpu.h"
#include "base/clock.h"
#include "base/rng.h"
#include "learn/optimiser.h"
#include "learn/update.h"
#include "mask/scores.h"

#define SEED 20261122u
#define N_MAX 261
#define N_WORDS (N_MAX / 64 + 1)
#define CANARY 16

static const struct kern_scores_impl *reference(void)
{
	const struct kern_scores_impl *impl = kern_scores_impls;

	while (impl->cpu)
		impl++;
	return impl;
}

static void fill(float *values, size_t n, struct rng *rng)
{
	for (size_t i = 0; i < n; i++)
		values[i] = rng_normal(rng) * powf(10, rng_range(rng, -6, 2));
}

/* Most words keep all, as a learnt mask's do. */
static void fill_words(uint64_t *words, size_t n, struct rng *rng)
{
	for (size_t i = 0; i < n; i++)
		words[i] = rng_below(rng, 2) ? UINT64_MAX
					     : (uint64_t)rng_u32(rng) << 32 | rng_u32(rng);
}

static void compare(const struct kern_scores_impl *impl, struct rng *rng, size_t n)
{
	float grad[N_MAX], weight[N_MAX], scores[N_MAX], want[N_MAX + CANARY], got[N_MAX + CANARY];
	uint64_t words[N_WORDS], want_bits[N_WORDS + 1], got_bits[N_WORDS + 1];
	double a, b;

	fill(grad, N_MAX, rng);
	fill(weight, N_MAX, rng);
	fill(scores, N_MAX, rng);
	fill_words(words, N_WORDS, rng);
	a = reference()->kept(grad, weight, words, n);
	b = impl->kept(grad, weight, words, n);
	assert_memory_equal(&a, &b, sizeof(a));

	fill(want, N_MAX + CANARY, rng);
	memcpy(got, want, sizeof(got));
	reference()->grad(want, grad, weight, n, 1.25f, .01f);
	impl->grad(got, grad, weight, n, 1.25f, .01f);
	assert_memory_equal(want, got, sizeof(want));
	/* In place. */
	impl->grad(grad, grad, weight, n, 1.25f, .01f);
	assert_memory_equal(grad, want, n * sizeof(*grad));

	scores[n / 2] = .5f; /* on the threshold: off */
	memset(want_bits, 0xa5, sizeof(want_bits));
	memcpy(got_bits, want_bits, sizeof(got_bits));
	assert_int_equal(
		reference()->bits(want_bits, scores, n, .5f), impl->bits(got_bits, scores, n, .5f));
	assert_memory_equal(want_bits, got_bits, sizeof(want_bits));
	for (size_t i = 0; i < n; i++)
		assert_int_equal(got_bits[i / 64] >> (i % 64) & 1, scores[i] > .5f);
	if (n % 64)
		assert_int_equal(got_bits[n / 64] >> (n % 64), 0);
}

static void every_kernel_gives_the_bits_of_the_reference(void **state)
{
	struct rng rng = rng_stream(SEED, 0, 0, 0);

	(void)state;
	for (const struct kern_scores_impl *impl = kern_scores_impls; impl->name; impl++) {
		if (!cpu_has(impl->cpu)) {
			print_message("%s: not on this CPU\n", impl->name);
			continue;
		}
		for (size_t n = 0; n < N_MAX; n++)
			compare(impl, &rng, n);
	}
}

enum { N_TENSORS = 4, N_ELEMENTS = 5000 + 67 + 4096 + 3, N_STEPS = 5 };

/* Everything that a round keeps of its scores. */
struct bench {
	struct mask_layout *layout;
	struct mask *mask, *selection;
	float scores[N_ELEMENTS], first[N_ELEMENTS], second[N_ELEMENTS];
};

static void bench_new(struct bench *bench, bool select)
{
	static const char *const names[] = { "a", "b", "c", "d" };
	static const size_t sizes[] = { 5000, 67, 4096, 3 };
	struct rng rng = rng_stream(SEED, 1, 0, 0);

	memset(bench, 0, sizeof(*bench));
	assert_int_equal(mask_layout_new(&bench->layout, N_TENSORS, names, sizes), 0);
	assert_int_equal(mask_new(&bench->mask, bench->layout), 0);
	if (select) {
		assert_int_equal(mask_new(&bench->selection, bench->layout), 0);
		for (size_t i = 0; i < 5000; i += 3)
			mask_put(bench->selection, 0, i, false);
	}
	for (size_t i = 0; i < N_ELEMENTS; i++)
		bench->scores[i] = rng_range(&rng, -.01f, .2f);
	mask_from_scores(bench->mask, bench->scores, 0);
}

static void bench_done(struct bench *bench)
{
	mask_free(bench->selection);
	mask_free(bench->mask);
	mask_layout_free(bench->layout);
}

static void one_by_one(
	struct bench *b, float *grad, const float *const *weights, const struct update *u)
{
	scores_backward(grad, grad, weights, b->mask, u->alpha_term);
	if (b->selection)
		scores_confine(grad, b->selection);
	if (u->second)
		optimiser_adam(b->scores, b->first, b->second, grad, N_ELEMENTS, u->lr, u->step);
	else
		optimiser_sgd(b->scores, b->first, grad, N_ELEMENTS, u->lr);
	if (u->bits)
		mask_from_scores(b->mask, b->scores, u->threshold);
}

static void an_update_is_its_steps_one_by_one(void **state)
{
	static struct bench one, all;
	static float grad[N_ELEMENTS], values[N_ELEMENTS];
	const float *weights[N_TENSORS];
	struct rng rng = rng_stream(SEED, 2, 0, 0);

	(void)state;
	for (unsigned kind = 0; kind < 16; kind++) {
		const bool adam = kind & 1, select = kind & 2, bits = !(kind & 8);

		bench_new(&one, select);
		bench_new(&all, select);
		for (unsigned t = 0; t < N_TENSORS; t++)
			weights[t] = values + one.layout->tensors[t].offset;
		for (uint32_t step = 1; step <= N_STEPS; step++) {
			const struct update u = {
				.scores = all.scores,
				.first = all.first,
				.second = adam ? all.second : NULL,
				.grad = grad,
				.weights = weights,
				.mask = all.mask,
				.selection = all.selection,
				.lr = .03f,
				.step = step,
				.alpha_term = !(kind & 4),
				.bits = bits,
				.threshold = .01f,
			};

			fill(grad, N_ELEMENTS, &rng);
			fill(values, N_ELEMENTS, &rng);
			update_scores(&u);
			one_by_one(&one, grad, weights, &u);
			assert_memory_equal(one.scores, all.scores, sizeof(one.scores));
			assert_memory_equal(one.first, all.first, sizeof(one.first));
			assert_memory_equal(one.second, all.second, sizeof(one.second));
			assert_memory_equal(one.mask->words, all.mask->words,
				one.layout->n_words * sizeof(uint64_t));
			assert_memory_equal(one.mask->n_on, all.mask->n_on,
				N_TENSORS * sizeof(*one.mask->n_on));
		}
		assert_true(mask_density(all.mask) < 1);
		bench_done(&one);
		bench_done(&all);
	}
}

static int compare_ns(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void bench(void)
{
	enum { N = 4096, ROUNDS = 2001, REPEAT = 8 };
	static float grad[N], weight[N], scores[N];
	static uint64_t words[N / 64], ns[ROUNDS];
	struct rng rng = rng_stream(SEED, 3, 0, 0);

	fill_words(words, N / 64, &rng);
	for (const struct kern_scores_impl *impl = kern_scores_impls; impl->name; impl++) {
		if (!cpu_has(impl->cpu))
			continue;
		for (unsigned i = 0; i < ROUNDS; i++) {
			uint64_t start = clock_now_ns();

			for (unsigned j = 0; j < REPEAT; j++) {
				double kept = impl->kept(grad, weight, words, N);

				impl->grad(scores, grad, weight, N, 1, (float)kept);
				(void)impl->bits(words, scores, N, 0);
			}
			ns[i] = clock_now_ns() - start;
		}
		qsort(ns, ROUNDS, sizeof(*ns), compare_ns);
		print_message("scores %-8s %8.1f ns/row of %d\n", impl->name,
			(double)ns[ROUNDS / 2] / REPEAT, N);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_kernel_gives_the_bits_of_the_reference),
		cmocka_unit_test(an_update_is_its_steps_one_by_one),
	};

	if (argc > 1 && strcmp(argv[1], "--bench") == 0) {
		bench();
		return 0;
	}
	print_message("seed %u\n", SEED);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
