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
#include "golden/golden.h"
#include "learn/optimiser.h"

#define SEED 20240918u
#define N_MAX 131
#define CANARY 16

static const struct kern_optimiser_impl *reference(void)
{
	const struct kern_optimiser_impl *impl = kern_optimiser_impls;

	while (impl->cpu)
		impl++;
	return impl;
}

/** params, first, second, grad. */
struct arrays {
	float v[4][N_MAX + CANARY];
};

static void compare(const struct kern_optimiser_impl *impl, struct rng *rng, size_t n)
{
	const struct kern_adam_step step = { .9f, .99f, 1e-8f, .0123f, .37f, .9995f };
	struct arrays want, got;

	for (unsigned a = 0; a < 4; a++)
		for (unsigned i = 0; i < N_MAX + CANARY; i++)
			want.v[a][i] = rng_normal(rng) * powf(10, rng_range(rng, -9, 3));
	for (unsigned i = 0; i < N_MAX + CANARY; i++)
		want.v[2][i] = rng_below(rng, 8) ? fabsf(want.v[2][i]) : 0;
	got = want;
	reference()->adam(want.v[0], want.v[1], want.v[2], want.v[3], n, &step);
	impl->adam(got.v[0], got.v[1], got.v[2], got.v[3], n, &step);
	assert_memory_equal(&want, &got, sizeof(want));
	reference()->sgd(want.v[0], want.v[1], want.v[3], n, .15f, .9f);
	impl->sgd(got.v[0], got.v[1], got.v[3], n, .15f, .9f);
	assert_memory_equal(&want, &got, sizeof(want));
}

static void every_kernel_gives_the_bits_of_the_reference(void **state)
{
	struct rng rng = rng_stream(SEED, 0, 0, 0);

	(void)state;
	print_message("seed %u\n", SEED);
	for (const struct kern_optimiser_impl *impl = kern_optimiser_impls; impl->adam; impl++) {
		if (!cpu_has(impl->cpu)) {
			print_message("%s: not on this CPU\n", impl->name);
			continue;
		}
		for (size_t n = 0; n <= N_MAX; n++)
			compare(impl, &rng, n);
	}
}

static void three_steps_equal_the_golden(void **state)
{
	enum { N = 37, STEPS = 3 };
	struct golden golden = { 0 };
	float params[N], first[N] = { 0 }, second[N] = { 0 }, velocity[N] = { 0 };
	const float *grads;

	(void)state;
	assert_int_equal(golden_open(&golden, "tests/golden/optimiser.f32"), 0);
	grads = golden_take(&golden, (size_t)STEPS * N);
	for (unsigned i = 0; i < N; i++)
		params[i] = 1;
	for (uint32_t s = 0; s < STEPS; s++) {
		const float *want = golden_take(&golden, N);

		optimiser_adam(params, first, second, grads + (size_t)s * N, N, .06f, s + 1);
		for (unsigned i = 0; i < N; i++)
			assert_true(fabsf(params[i] - want[i]) < 1e-6f);
	}
	for (unsigned i = 0; i < N; i++)
		params[i] = 1;
	for (uint32_t s = 0; s < STEPS; s++) {
		const float *want = golden_take(&golden, N);

		optimiser_sgd(params, velocity, grads + (size_t)s * N, N, .15f);
		for (unsigned i = 0; i < N; i++)
			assert_true(fabsf(params[i] - want[i]) <= 1e-6f * (1 + fabsf(want[i])));
	}
	assert_int_equal(golden.used, golden.n);
	golden_done(&golden);
}

static void the_schedule_is_half_a_cosine(void **state)
{
	(void)state;
	assert_true(schedule_cosine(.06f, 0, 50) == .06f);
	assert_true(fabsf(schedule_cosine(.06f, 25, 50) - .03f) < 1e-8f);
	assert_true(schedule_cosine(.06f, 49, 50) < 1e-4f);
}

static int compare_ns(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void bench(void)
{
	enum { N = 4096, ROUNDS = 2001, REPEAT = 8 };
	const struct kern_adam_step step = { .9f, .99f, 1e-8f, .0123f, .37f, .9995f };
	static float v[4][N];
	static uint64_t ns[ROUNDS];

	for (const struct kern_optimiser_impl *impl = kern_optimiser_impls; impl->adam; impl++) {
		if (!cpu_has(impl->cpu))
			continue;
		for (unsigned i = 0; i < ROUNDS; i++) {
			uint64_t start = clock_now_ns();

			for (unsigned j = 0; j < REPEAT; j++)
				impl->adam(v[0], v[1], v[2], v[3], N, &step);
			ns[i] = clock_now_ns() - start;
		}
		qsort(ns, ROUNDS, sizeof(*ns), compare_ns);
		print_message("adam %-8s %8.1f ns/row of %d  %6.2f GB/s\n", impl->name,
			(double)ns[ROUNDS / 2] / REPEAT, N,
			7. * N * sizeof(float) * REPEAT / (double)ns[ROUNDS / 2]);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_kernel_gives_the_bits_of_the_reference),
		cmocka_unit_test(three_steps_equal_the_golden),
		cmocka_unit_test(the_schedule_is_half_a_cosine),
	};

	if (argc > 1 && strcmp(argv[1], "--bench") == 0) {
		bench();
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
