/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <string.h>
#include <cmocka.h>

#include "base/cpu.h"
#include "base/rng.h"
#include "model/row_bf16.h"
#include "model/row_grad.h"

#define SEED 20261122u
#define N_MAX 261
#define CANARY 16
/* Half a unit in the last of bf16's 8 bits. */
#define ROUNDING (1. / 256)

static const struct kern_row_grad_impl *reference(void)
{
	const struct kern_row_grad_impl *impl = kern_row_grad_impls;

	while (impl->cpu)
		impl++;
	return impl;
}

static void fill(float *values, size_t n, struct rng *rng)
{
	float spread = powf(10, rng_range(rng, -3, 2));

	for (size_t i = 0; i < n; i++)
		values[i] = rng_normal(rng) * spread;
}

static void fill_bf16(bf16 *values, size_t n, struct rng *rng)
{
	for (size_t i = 0; i < n; i++)
		values[i] = bf16_narrow(rng_normal(rng));
}

/* Everything that one row of a norm's way back reads and writes. */
struct row {
	float dst[N_MAX + CANARY], residual[N_MAX], dy[N_MAX], x[N_MAX], gamma[N_MAX];
	bf16 rounded[N_MAX + CANARY];
};

static struct row random_row(struct rng *rng)
{
	struct row row;

	fill(row.dst, N_MAX + CANARY, rng);
	fill(row.residual, N_MAX, rng);
	fill(row.dy, N_MAX, rng);
	fill(row.x, N_MAX, rng);
	fill(row.gamma, N_MAX, rng);
	fill_bf16(row.rounded, N_MAX + CANARY, rng);
	return row;
}

static void run_norm(
	const struct kern_row_grad_impl *impl, struct row *row, size_t n, unsigned kind)
{
	impl->norm(
		&(struct norm_grad_row){
			.dst = row->dst,
			.rounded = kind & 1 ? row->rounded : NULL,
			.residual = kind & 2 ? row->residual : NULL,
			.dy = row->dy,
			.x = row->x,
			.mean = .1f,
			.inverse = 1.3f,
		},
		row->gamma, n);
}

static void every_kernel_gives_the_bits_of_the_reference(void **state)
{
	struct rng rng = rng_stream(SEED, 0, 0, 0);

	(void)state;
	for (const struct kern_row_grad_impl *impl = kern_row_grad_impls; impl->name; impl++) {
		if (!cpu_has(impl->cpu)) {
			print_message("%s: not on this CPU\n", impl->name);
			continue;
		}
		for (size_t n = 1; n <= N_MAX; n++) {
			bf16 p[N_MAX], d[2][N_MAX + CANARY];

			for (unsigned kind = 0; kind < 4; kind++) {
				struct row want = random_row(&rng), got = want;

				run_norm(reference(), &want, n, kind);
				run_norm(impl, &got, n, kind);
				assert_memory_equal(&want, &got, sizeof(want));
			}
			fill_bf16(p, N_MAX, &rng);
			fill_bf16(d[0], N_MAX + CANARY, &rng);
			memcpy(d[1], d[0], sizeof(d[0]));
			reference()->softmax(d[0], p, n);
			impl->softmax(d[1], p, n);
			assert_memory_equal(d[0], d[1], sizeof(d[0]));
		}
	}
}

/* A norm's own gradient in double. */
static void norm_sums_twin(double *d_gamma, double *d_beta, const struct norm_sums *job)
{
	for (size_t j = 0; j < job->n; j++)
		for (size_t i = 0; i < job->rows; i++) {
			const size_t at = i * job->n + j;
			const double inverse = 1 / sqrt((double)job->variance[i] + job->eps);

			d_gamma[j] += job->dy[at] * ((double)job->x[at] - job->mean[i]) * inverse;
			d_beta[j] += job->dy[at];
		}
}

static void a_norms_own_gradient_is_its_formula(void **state)
{
	enum { ROWS = 131, N = 200 };
	static float dy[ROWS * N], x[ROWS * N], mean[ROWS], variance[ROWS], got[2][N], want[2][N];
	struct norm_sums job = { got[0], got[1], dy, x, mean, variance, 1e-6f, ROWS, N };
	static double twin[2][N];
	struct rng rng = rng_stream(SEED, 5, 0, 0);

	(void)state;
	for (size_t i = 0; i < (size_t)ROWS * N; i++) {
		dy[i] = rng_normal(&rng);
		x[i] = rng_normal(&rng);
	}
	for (size_t i = 0; i < ROWS; i++) {
		mean[i] = rng_normal(&rng);
		variance[i] = rng_range(&rng, .1f, 2);
	}
	norm_sums_twin(twin[0], twin[1], &job);
	row_norm_sums(&job);
	for (unsigned j = 0; j < N; j++)
		for (unsigned i = 0; i < 2; i++)
			assert_true(fabs(got[i][j] - twin[i][j]) < 2e-4);
	for (const struct kern_row_grad_impl *impl = kern_row_grad_impls; impl->name; impl++) {
		if (!cpu_has(impl->cpu))
			continue;
		for (size_t n = 1; n <= ROW_SUM_COLUMNS; n += 5) {
			memset(got, 0, sizeof(got));
			memset(want, 0, sizeof(want));
			job.d_gamma = want[0];
			job.d_beta = want[1];
			reference()->norm_sums(&job, 96, n);
			job.d_gamma = got[0];
			job.d_beta = got[1];
			impl->norm_sums(&job, 96, n);
			assert_memory_equal(got, want, sizeof(got));
		}
	}
}

static void sums_are_of_whole_columns(void **state)
{
	enum { ROWS = 131 };
	static float src[ROWS * N_MAX], want[N_MAX + CANARY], got[N_MAX + CANARY];
	static bf16 rounded[ROWS * N_MAX];
	struct rng rng = rng_stream(SEED, 4, 0, 0);

	(void)state;
	for (const struct kern_row_grad_impl *impl = kern_row_grad_impls; impl->name; impl++) {
		if (!cpu_has(impl->cpu))
			continue;
		for (size_t n = 1; n <= ROW_SUM_COLUMNS; n++)
			for (enum precision p = 0; p <= PRECISION_BF16; p++) {
				const void *values = p == PRECISION_BF16 ? (void *)rounded : src;

				fill(src, ROWS * N_MAX, &rng);
				fill_bf16(rounded, ROWS * N_MAX, &rng);
				fill(want, N_MAX + CANARY, &rng);
				memcpy(got, want, sizeof(got));
				reference()->sums[p](want, values, ROWS, n, N_MAX);
				impl->sums[p](got, values, ROWS, n, N_MAX);
				assert_memory_equal(want, got, sizeof(want));
			}
	}
	for (size_t n = 1; n <= N_MAX; n += 13) {
		fill(src, ROWS * N_MAX, &rng);
		memset(got, 0, sizeof(got));
		row_column_sums(got, src, ROWS, n, PRECISION_F32);
		for (size_t j = 0; j < n; j++) {
			double sum = 0, size = 0;

			for (size_t i = 0; i < ROWS; i++) {
				sum += src[i * n + j];
				size += fabs(src[i * n + j]);
			}
			assert_true(fabs(got[j] - sum) <= 1e-5 * size);
		}
		assert_true(got[n] == 0);
	}
}

/* In double: of y = (x - mean) / sqrt(var + eps) gamma. */
static void norm_gradient(const struct row *row, size_t n, double eps, double *want)
{
	double mean = 0, var = 0, sum = 0, along = 0, inverse;

	for (size_t i = 0; i < n; i++)
		mean += row->x[i] / (double)n;
	for (size_t i = 0; i < n; i++)
		var += (row->x[i] - mean) * (row->x[i] - mean) / (double)n;
	inverse = 1 / sqrt(var + eps);
	for (size_t i = 0; i < n; i++) {
		double d = (double)row->dy[i] * row->gamma[i];

		sum += d;
		along += d * (row->x[i] - mean) * inverse;
	}
	for (size_t i = 0; i < n; i++)
		want[i] = inverse * ((double)row->dy[i] * row->gamma[i] - sum / (double)n -
					    (row->x[i] - mean) * inverse * along / (double)n);
}

static void moments(const float *x, size_t n, float *ret_mean, float *ret_variance)
{
	double mean = 0, variance = 0;

	for (size_t i = 0; i < n; i++)
		mean += x[i] / (double)n;
	for (size_t i = 0; i < n; i++)
		variance += (x[i] - mean) * (x[i] - mean) / (double)n;
	*ret_mean = (float)mean;
	*ret_variance = (float)variance;
}

static void a_norms_way_back_is_that_of_its_formula(void **state)
{
	struct rng rng = rng_stream(SEED, 1, 0, 0);

	(void)state;
	for (size_t n = 2; n <= N_MAX; n += 7) {
		struct row row = random_row(&rng);
		float mean, variance, largest = 0;
		double want[N_MAX];

		moments(row.x, n, &mean, &variance);
		norm_gradient(&row, n, 1e-6, want);
		for (size_t i = 0; i < n; i++)
			/* What cancels: of two values nothing is left. */
			largest = fmaxf(
				largest, fabsf(row.dy[i] * row.gamma[i]) / sqrtf(variance + 1e-6f) +
						 fabsf(row.residual[i]));
		row_norm_grad(&(struct row_norm_grad){
			.dst = row.dst,
			.rounded = row.rounded,
			.residual = row.residual,
			.every = 1,
			.dy = row.dy,
			.x = row.x,
			.mean = &mean,
			.variance = &variance,
			.gamma = row.gamma,
			.eps = 1e-6f,
			.rows = 1,
			.n = n,
		});
		for (size_t i = 0; i < n; i++) {
			double sum = want[i] + row.residual[i];

			if (!(fabs(row.dst[i] - sum) <= 1e-5 * largest))
				fail_msg("of %zu: %g, wanted %g", n, row.dst[i], sum);
			assert_int_equal(row.rounded[i], bf16_narrow(row.dst[i]));
		}
	}
}

static void only_every_third_row_has_a_residual(void **state)
{
	enum { ROWS = 7, N = 20 };
	struct rng rng = rng_stream(SEED, 2, 0, 0);
	float dy[ROWS * N], x[ROWS * N], residual[3 * N], gamma[N], mean[ROWS], variance[ROWS];
	float with[ROWS * N], without[ROWS * N];
	struct row_norm_grad job = {
		.dst = without,
		.every = 3,
		.dy = dy,
		.x = x,
		.mean = mean,
		.variance = variance,
		.gamma = gamma,
		.rows = ROWS,
		.n = N,
	};

	(void)state;
	fill(dy, ROWS * N, &rng);
	fill(x, ROWS * N, &rng);
	fill(residual, 3 * N, &rng);
	fill(gamma, N, &rng);
	for (size_t i = 0; i < ROWS; i++)
		moments(x + i * N, N, &mean[i], &variance[i]);
	row_norm_grad(&job);
	job.dst = with;
	job.residual = residual;
	row_norm_grad(&job);
	for (size_t i = 0; i < ROWS * N; i++) {
		float more = i / N % 3 == 0 ? residual[i / N / 3 * N + i % N] : 0;

		assert_true(with[i] == more + without[i]);
	}
}

static void a_softmaxs_way_back_is_exact_but_for_rounding(void **state)
{
	struct rng rng = rng_stream(SEED, 3, 0, 0);

	(void)state;
	for (size_t n = 1; n <= N_MAX; n++) {
		bf16 d[N_MAX], got[N_MAX], p[N_MAX];
		double dot = 0, largest = 0;

		for (size_t i = 0; i < n; i++)
			p[i] = bf16_narrow(rng_uniform(&rng) / (float)n);
		fill_bf16(d, n, &rng);
		memcpy(got, d, sizeof(got));
		row_softmax_grad(got, p, 1, n);
		for (size_t i = 0; i < n; i++) {
			dot += (double)bf16_widen(d[i]) * bf16_widen(p[i]);
			largest = fmax(largest, bf16_widen(p[i]));
		}
		for (size_t i = 0; i < n; i++) {
			double want = bf16_widen(p[i]) * (bf16_widen(d[i]) - dot);

			if (!(fabs(bf16_widen(got[i]) - want) <=
				    fabs(want) * ROUNDING + 1e-6 * largest))
				fail_msg("of %zu: %g, wanted %g", n, bf16_widen(got[i]), want);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_kernel_gives_the_bits_of_the_reference),
		cmocka_unit_test(a_norms_own_gradient_is_its_formula),
		cmocka_unit_test(sums_are_of_whole_columns),
		cmocka_unit_test(a_norms_way_back_is_that_of_its_formula),
		cmocka_unit_test(only_every_third_row_has_a_residual),
		cmocka_unit_test(a_softmaxs_way_back_is_exact_but_for_rounding),
	};

	print_message("seed %u\n", SEED);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
