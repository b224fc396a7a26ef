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
#include "model/row.h"

#define SEED 20261122u
#define N_MAX 261
/* Half a unit in the last of bf16's 8 bits, and what the approximation adds. */
#define ROUNDING (1. / 256)

static double widen(bf16 value)
{
	uint32_t bits = (uint32_t)value << 16;
	float x;

	memcpy(&x, &bits, sizeof(x));
	return x;
}

static bf16 upper_half(float x)
{
	uint32_t bits;

	memcpy(&bits, &x, sizeof(bits));
	return (bf16)(bits >> 16);
}

static double phi(double x)
{
	return .5 * erfc(-x / sqrt(2));
}

static double slope(double x)
{
	return phi(x) + x * exp(-x * x / 2) / sqrt(2 * M_PI);
}

/* Every bf16 from -64 to 64 that is no denormal. */
static size_t all_values(bf16 *values)
{
	size_t n = 0;

	for (uint32_t bits = 0x0080; bits <= 0x4280; bits++) {
		values[n++] = (bf16)bits;
		values[n++] = (bf16)(bits | 0x8000);
	}
	return n;
}

static void gelu_is_exact_but_for_rounding(void **state)
{
	static bf16 values[2 * 0x4280], got[2 * 0x4280];
	const size_t n = all_values(values);

	(void)state;
	row_gelu(got, values, n);
	for (size_t i = 0; i < n; i++) {
		double x = widen(values[i]), want = x * phi(x);

		if (!(fabs(widen(got[i]) - want) <= fabs(want) * ROUNDING + 6e-5 + 6e-6 * fabs(x)))
			fail_msg("gelu(%g) = %g, wanted %g", x, widen(got[i]), want);
	}
}

static void its_slope_is_exact_but_for_rounding(void **state)
{
	static bf16 values[2 * 0x4280], got[2 * 0x4280];
	const size_t n = all_values(values);

	(void)state;
	for (size_t i = 0; i < n; i++)
		got[i] = upper_half(1);
	row_gelu_grad(got, values, n);
	for (size_t i = 0; i < n; i++) {
		double x = widen(values[i]), want = slope(x);

		if (!(fabs(widen(got[i]) - want) <= fabs(want) * ROUNDING + 2e-4))
			fail_msg("slope at %g = %g, wanted %g", x, widen(got[i]), want);
	}
}

static void random_logits(float *logits, size_t n, struct rng *rng)
{
	float spread = powf(10, rng_range(rng, -3, 2));

	for (size_t i = 0; i < n; i++)
		logits[i] = rng_normal(rng) * spread;
}

static void softmax_is_exact_but_for_rounding(void **state)
{
	struct rng rng = rng_stream(SEED, 0, 0, 0);
	float logits[N_MAX], used[N_MAX];
	bf16 got[N_MAX + 3];

	(void)state;
	for (size_t n = 1; n <= N_MAX; n++) {
		double max = -INFINITY, sum = 0;

		random_logits(logits, n, &rng);
		memcpy(used, logits, n * sizeof(*logits));
		row_softmax(got, used, 1, n, n + 3);
		assert_true(got[n] == 0 && got[n + 1] == 0 && got[n + 2] == 0);
		for (size_t i = 0; i < n; i++)
			max = fmax(max, logits[i]);
		for (size_t i = 0; i < n; i++)
			sum += exp(logits[i] - max);
		for (size_t i = 0; i < n; i++) {
			double want = exp(logits[i] - max) / sum;

			if (!(fabs(widen(got[i]) - want) <= want * (ROUNDING + 1e-5) + 1e-37))
				fail_msg("of %zu: %g, wanted %g", n, widen(got[i]), want);
		}
	}
}

static void random_norm(float *weight, float *bias, size_t n, struct rng *rng)
{
	for (size_t i = 0; i < n; i++) {
		weight[i] = 1 + rng_normal(rng) / 4;
		bias[i] = rng_normal(rng) / 4;
	}
}

static void a_norm_is_exact_but_for_rounding(void **state)
{
	struct rng rng = rng_stream(SEED, 3, 0, 0);
	float src[N_MAX], weight[N_MAX], bias[N_MAX], mean, variance;
	bf16 got[N_MAX];

	(void)state;
	for (size_t n = 2; n <= N_MAX; n++) {
		const struct row_norm norm = { weight, bias, 1e-6F, n };
		double want_mean = 0, want_variance = 0;

		random_logits(src, n, &rng);
		random_norm(weight, bias, n, &rng);
		row_normalise(got, src, &norm, 1, &mean, &variance);
		for (size_t i = 0; i < n; i++)
			want_mean += (double)src[i] / (double)n;
		for (size_t i = 0; i < n; i++)
			want_variance += (src[i] - want_mean) * (src[i] - want_mean) / (double)n;
		assert_true(fabs(variance - want_variance) <= 1e-5 * want_variance);
		assert_true(fabs(mean - want_mean) <= 1e-5 * sqrt(want_variance));
		for (size_t i = 0; i < n; i++) {
			double y = (src[i] - want_mean) / sqrt(want_variance + 1e-6) * weight[i];
			double want = y + bias[i];

			if (!(fabs(widen(got[i]) - want) <=
				    fabs(want) * ROUNDING + 1e-5 * (1 + fabs(y))))
				fail_msg("of %zu: %g, wanted %g", n, widen(got[i]), want);
		}
	}
}

/* Rows of 3 patches of n pixels, 5 values apart. */
static void check_cut(const struct kern_row_impl *reference, const struct kern_row_impl *impl,
	size_t n, struct rng *rng)
{
	static bf16 want[3 * (N_MAX + 5)], got[3 * (N_MAX + 5)];
	static float src[3 * N_MAX];

	random_logits(src, ARRAY_SIZE(src), rng);
	memset(want, 0, sizeof(want));
	memset(got, 0, sizeof(got));
	reference->cut(want, src, n, 3, n + 5);
	impl->cut(got, src, n, 3, n + 5);
	assert_memory_equal(want, got, sizeof(want));
	for (size_t i = 0; i < 3 * n; i++) {
		double rounded = widen(got[i / n * (n + 5) + i % n]);

		assert_true(fabs(rounded - src[i]) <= fabs(src[i]) * ROUNDING);
	}
}

static void every_kernel_gives_the_bits_of_the_reference(void **state)
{
	const struct kern_row_impl *reference = kern_row_impls;
	struct rng rng = rng_stream(SEED, 1, 0, 0);

	(void)state;
	while (reference->cpu)
		reference++;
	for (const struct kern_row_impl *impl = kern_row_impls; impl->name; impl++) {
		if (!cpu_has(impl->cpu)) {
			print_message("%s: not on this CPU\n", impl->name);
			continue;
		}
		for (size_t n = 1; n <= N_MAX; n++) {
			bf16 x[N_MAX], d[2][N_MAX], y[2][N_MAX], p[2][N_MAX], z[2][N_MAX];
			float logits[2][N_MAX], weight[N_MAX], bias[N_MAX], stats[2][2];
			const struct row_norm norm = { weight, bias, 1e-6F, n };

			random_logits(logits[0], n, &rng);
			random_norm(weight, bias, n, &rng);
			memcpy(logits[1], logits[0], n * sizeof(float));
			for (size_t i = 0; i < n; i++) {
				x[i] = upper_half(4 * rng_normal(&rng));
				d[0][i] = d[1][i] = upper_half(rng_normal(&rng));
			}
			reference->gelu(y[0], x, n);
			impl->gelu(y[1], x, n);
			reference->gelu_grad(d[0], x, n);
			impl->gelu_grad(d[1], x, n);
			reference->norm(z[0], logits[0], &norm, stats[0]);
			impl->norm(z[1], logits[1], &norm, stats[1]);
			reference->softmax(p[0], logits[0], n, n);
			impl->softmax(p[1], logits[1], n, n);
			assert_memory_equal(y[0], y[1], n * sizeof(bf16));
			assert_memory_equal(d[0], d[1], n * sizeof(bf16));
			assert_memory_equal(p[0], p[1], n * sizeof(bf16));
			assert_memory_equal(z[0], z[1], n * sizeof(bf16));
			check_cut(reference, impl, n, &rng);
			assert_memory_equal(stats[0], stats[1], sizeof(stats[0]));
		}
	}
}

static void a_gelu_in_place_is_the_same(void **state)
{
	struct rng rng = rng_stream(SEED, 2, 0, 0);
	bf16 x[N_MAX], y[N_MAX];

	(void)state;
	for (size_t i = 0; i < N_MAX; i++)
		x[i] = upper_half(3 * rng_normal(&rng));
	row_gelu(y, x, N_MAX);
	row_gelu(x, x, N_MAX);
	assert_memory_equal(x, y, sizeof(x));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gelu_is_exact_but_for_rounding),
		cmocka_unit_test(its_slope_is_exact_but_for_rounding),
		cmocka_unit_test(softmax_is_exact_but_for_rounding),
		cmocka_unit_test(a_norm_is_exact_but_for_rounding),
		cmocka_unit_test(every_kernel_gives_the_bits_of_the_reference),
		cmocka_unit_test(a_gelu_in_place_is_the_same),
	};

	print_message("seed %u\n", SEED);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
