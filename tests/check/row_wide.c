/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <string.h>
#include <cmocka.h>

#include "base/cpu.h"
#include "base/cleanup.h"
#include "base/rng.h"
#include "model/row_wide.h"

#define SEED 20261123u
#define N_MAX 261

static double phi(double x)
{
	return .5 * erfc(-x / sqrt(2));
}

static void random_row(float *row, size_t n, struct rng *rng)
{
	float spread = powf(10, rng_range(rng, -3, 2));

	for (size_t i = 0; i < n; i++)
		row[i] = rng_normal(rng) * spread;
}

static void gelu_is_within_its_tolerance(void **state)
{
	const struct kern_wide_impl *impl = kern_wide_fastest();

	(void)state;
	for (int i = -200000; i <= 200000; i++) {
		float x = (float)i * 1e-4F, got;

		impl->gelu(&got, &x, 1);
		if (!(fabs(got - x * phi(x)) <= 3e-7 * fabs(x)))
			fail_msg("gelu(%g) = %g, wanted %g", x, got, x * phi(x));
	}
}

static void what_is_far_out_is_passed_on_or_nothing(void **state)
{
	const float x[] = { 1e4F, -1e4F, 1e19F, -1e19F, 0, INFINITY };
	float got[ARRAY_SIZE(x)];

	(void)state;
	kern_wide_fastest()->gelu(got, x, 5);
	assert_true(got[0] == x[0] && got[2] == x[2]);
	assert_true(fabsf(got[1]) < 1e-30F && fabsf(got[3]) < 1e-16F && got[4] == 0);
}

static void softmax_is_within_its_tolerance(void **state)
{
	struct rng rng = rng_stream(SEED, 0, 0, 0);
	float row[N_MAX], got[N_MAX];

	(void)state;
	for (size_t n = 1; n <= N_MAX; n++) {
		double max = -INFINITY, sum = 0;

		random_row(row, n, &rng);
		memcpy(got, row, sizeof(got));
		kern_wide_fastest()->softmax(got, n);
		for (size_t i = 0; i < n; i++)
			max = fmax(max, row[i]);
		for (size_t i = 0; i < n; i++)
			sum += exp(row[i] - max);
		for (size_t i = 0; i < n; i++) {
			double want = exp(row[i] - max) / sum;

			/* What a difference of f32 loses is the logits' share. */
			if (!(fabs(got[i] - want) <= want * (1e-6 + 1e-7 * (max - row[i])) + 1e-37))
				fail_msg("of %zu: %g, wanted %g", n, got[i], want);
		}
	}
}

static void a_norm_is_exact_but_for_rounding(void **state)
{
	struct rng rng = rng_stream(SEED, 1, 0, 0);
	float src[N_MAX], weight[N_MAX], bias[N_MAX], got[N_MAX];

	(void)state;
	for (size_t n = 2; n <= N_MAX; n++) {
		const struct row_norm norm = { weight, bias, 1e-6F, n };
		double mean = 0, variance = 0;

		random_row(src, n, &rng);
		random_row(weight, n, &rng);
		random_row(bias, n, &rng);
		kern_wide_fastest()->norm(got, src, &norm);
		for (size_t i = 0; i < n; i++)
			mean += (double)src[i] / (double)n;
		for (size_t i = 0; i < n; i++)
			variance += (src[i] - mean) * (src[i] - mean) / (double)n;
		for (size_t i = 0; i < n; i++) {
			double y = (src[i] - mean) / sqrt(variance + 1e-6) * weight[i];

			if (!(fabs(got[i] - y - bias[i]) <=
				    1e-5 * (fabs(weight[i]) + fabs(y) + fabs(bias[i]))))
				fail_msg("of %zu: %g, wanted %g", n, got[i], y + bias[i]);
		}
	}
}

static void every_kernel_gives_the_bits_of_the_reference(void **state)
{
	const struct kern_wide_impl *reference = kern_wide_impls;
	struct rng rng = rng_stream(SEED, 2, 0, 0);

	(void)state;
	while (reference->cpu)
		reference++;
	for (const struct kern_wide_impl *impl = kern_wide_impls; impl->name; impl++) {
		if (!cpu_has(impl->cpu)) {
			print_message("%s: not on this CPU\n", impl->name);
			continue;
		}
		for (size_t n = 1; n < N_MAX; n++) {
			float x[N_MAX], y[N_MAX], want[N_MAX] = { 0 }, got[N_MAX] = { 0 };
			const struct row_norm norm = { x, y, 1e-6F, n };

			random_row(x, n, &rng);
			random_row(y, n, &rng);
			reference->gelu(want, x, n);
			impl->gelu(got, x, n);
			assert_memory_equal(want, got, sizeof(want));
			reference->norm(want, y, &norm);
			impl->norm(got, y, &norm);
			assert_memory_equal(want, got, sizeof(want));
			reference->add(want, x, y, n);
			impl->add(got, x, y, n);
			assert_memory_equal(want, got, sizeof(want));
			reference->softmax(want, n);
			impl->softmax(got, n);
			assert_memory_equal(want, got, sizeof(want));
			reference->add(want, want, x, n);
			impl->add(got, got, x, n);
			reference->gelu(want, want, n);
			impl->gelu(got, got, n);
			assert_memory_equal(want, got, sizeof(want));
		}
	}
}

/* At any distance between rows, and nothing beside its own is written. */
static void rows_are_turned(void **state)
{
	enum { N = 64, MOST = N + 13 };
	float src[TURN_ROWS * MOST], got[TURN_ROWS * N + 1];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(src); i++)
		src[i] = (float)i;
	for (const struct kern_wide_impl *impl = kern_wide_impls; impl->name; impl++)
		for (size_t n = TURN_ROWS; n <= N && cpu_has(impl->cpu); n += TURN_ROWS)
			for (size_t stride = n; stride <= MOST; stride += 13) {
				memset(got, 0, sizeof(got));
				impl->turn(got, src, stride, n);
				for (size_t i = 0; i < TURN_ROWS * n; i++)
					assert_true(got[i] ==
						    src[i % TURN_ROWS * stride + i / TURN_ROWS]);
				for (size_t i = TURN_ROWS * n; i < ARRAY_SIZE(got); i++)
					assert_true(got[i] == 0);
			}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gelu_is_within_its_tolerance),
		cmocka_unit_test(what_is_far_out_is_passed_on_or_nothing),
		cmocka_unit_test(softmax_is_within_its_tolerance),
		cmocka_unit_test(a_norm_is_exact_but_for_rounding),
		cmocka_unit_test(every_kernel_gives_the_bits_of_the_reference),
		cmocka_unit_test(rows_are_turned),
	};

	print_message("seed %u\n", SEED);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
