/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/cpu.h"
#include "base/clock.h"
#include "base/rng.h"
#include "mask/bits.h"

#define SEED 20240917u
#define N_MAX 203 /* odd, and beyond three words: every tail length */
#define CANARY 8

static const struct kern_mask_impl *reference(void)
{
	const struct kern_mask_impl *impl = kern_mask_impls;

	while (impl->cpu)
		impl++;
	return impl;
}

static void fill(struct rng *rng, float *src, uint64_t *words)
{
	/* Words of all kinds: dense, empty, random. Values too: a dropped NaN must give 0. */
	for (unsigned i = 0; i < N_MAX; i++)
		src[i] = rng_below(rng, 16) ? rng_normal(rng) : __builtin_nanf("");
	for (unsigned w = 0; w < N_MAX / 64 + 1; w++) {
		uint64_t random = (uint64_t)rng_u32(rng) << 32 | rng_u32(rng);
		const uint64_t kinds[4] = { random, random | rng_u32(rng), UINT64_MAX, 0 };

		words[w] = kinds[rng_below(rng, 4)];
	}
}

static void compare(const struct kern_mask_impl *impl, struct rng *rng, size_t n)
{
	float src[N_MAX + CANARY], want[N_MAX + CANARY], got[N_MAX + CANARY];
	uint64_t words[N_MAX / 64 + 1];

	fill(rng, src, words);
	memset(want, 0x5a, sizeof(want));
	memset(got, 0x5a, sizeof(got));
	memset(src + N_MAX, 0x5a, CANARY * sizeof(*src));
	reference()->row(want, src, words, n);
	impl->row(got, src, words, n);
	assert_memory_equal(want, got, sizeof(want));
	/* In place, as the header allows. */
	impl->row(src, src, words, n);
	assert_memory_equal(want, src, n * sizeof(*src));
}

static void every_kernel_agrees_with_the_reference(void **state)
{
	struct rng rng = rng_stream(SEED, 0, 0, 0);

	(void)state;
	print_message("seed %u\n", SEED);
	for (const struct kern_mask_impl *impl = kern_mask_impls; impl->row; impl++) {
		if (!cpu_has(impl->cpu)) {
			print_message("%s: not on this CPU\n", impl->name);
			continue;
		}
		for (size_t n = 0; n <= N_MAX; n++)
			for (unsigned round = 0; round < 20; round++)
				compare(impl, &rng, n);
	}
}

static void the_chosen_kernel_is_the_first_that_runs(void **state)
{
	const struct kern_mask_impl *impl = kern_mask_impls;

	(void)state;
	while (!cpu_has(impl->cpu))
		impl++;
	assert_ptr_equal(kern_mask_row(), impl->row);
}

static int compare_ns(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void bench(void)
{
	enum { N = 768, ROUNDS = 2001, REPEAT = 64 };
	static float src[N], dst[N];
	static uint64_t words[N / 64], ns[ROUNDS];

	memset(words, 0xf7, sizeof(words));
	for (const struct kern_mask_impl *impl = kern_mask_impls; impl->row; impl++) {
		if (!cpu_has(impl->cpu))
			continue;
		for (unsigned i = 0; i < ROUNDS; i++) {
			uint64_t start = clock_now_ns();

			for (unsigned j = 0; j < REPEAT; j++) {
				impl->row(dst, src, words, N);
				__asm__ volatile("" : : "r"(dst) : "memory");
			}
			ns[i] = clock_now_ns() - start;
		}
		qsort(ns, ROUNDS, sizeof(*ns), compare_ns);
		print_message("%-8s %8.1f ns/row of %d  %6.2f GB/s\n", impl->name,
			(double)ns[ROUNDS / 2] / REPEAT, N,
			(double)(2 * sizeof(src) * REPEAT) / (double)ns[ROUNDS / 2]);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_kernel_agrees_with_the_reference),
		cmocka_unit_test(the_chosen_kernel_is_the_first_that_runs),
	};

	if (argc > 1 && strcmp(argv[1], "--bench") == 0) {
		bench();
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
