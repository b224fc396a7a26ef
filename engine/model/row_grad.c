/* SPDX-License-Identifier: Apache-2.0 */
#include "model/row_grad.h"

#include <math.h>

#include "base/cpu.h"

/* Of values: enough to be worth another thread. */
#define MANY ((size_t)1 << 14)

#define IMPL(isa, cpu) \
	{ \
#isa, cpu, kern_norm_grad_row_##isa, kern_softmax_grad_row_##isa, \
			{ kern_column_sums_##isa, kern_column_sums_bf16_##isa }, \
				kern_norm_sums_##isa \
	}

const struct kern_row_grad_impl kern_row_grad_impls[] = {
#ifdef KAMEN_X86
	IMPL(avx512, "avx512bw"),
	IMPL(avx2, "avx2"),
#endif
	IMPL(c, NULL),
	{ NULL },
};

void row_norm_grad(const struct row_norm_grad *job)
{
	kern_norm_grad_row_fn *norm = cpu_fastest(kern_row_grad_impls)->norm;
	const size_t n = job->n;

#pragma omp parallel for schedule(static) if (job->rows * n > MANY)
	for (size_t i = 0; i < job->rows; i++) {
		const bool has_residual = job->residual && i % job->every == 0;

		norm(
			&(struct norm_grad_row){
				.dst = job->dst + i * n,
				.rounded = job->rounded ? job->rounded + i * n : NULL,
				.residual =
					has_residual ? job->residual + i / job->every * n : NULL,
				.dy = job->dy + i * n,
				.x = job->x + i * n,
				.mean = job->mean[i],
				.inverse = 1 / sqrtf(job->variance[i] + job->eps),
			},
			job->gamma, n);
	}
}

void row_softmax_grad(bf16 *d, const bf16 *p, size_t rows, size_t n)
{
	kern_softmax_grad_row_fn *softmax = cpu_fastest(kern_row_grad_impls)->softmax;

#pragma omp parallel for schedule(static) if (rows * n > MANY)
	for (size_t i = 0; i < rows; i++)
		softmax(d + i * n, p + i * n, n);
}

void row_column_sums(float *sums, const void *src, size_t rows, size_t n, enum precision precision)
{
	kern_column_sums_fn *add = cpu_fastest(kern_row_grad_impls)->sums[precision];
	const size_t size = precision_bytes(precision);

	/* Whoever takes which columns takes all their rows: the team does not change a sum. */
#pragma omp parallel for schedule(static) if (rows * n > MANY)
	for (size_t at = 0; at < n; at += ROW_SUM_COLUMNS)
		add(sums + at, (const char *)src + at * size, rows,
			n - at < ROW_SUM_COLUMNS ? n - at : ROW_SUM_COLUMNS, n);
}

void row_norm_sums(const struct norm_sums *job)
{
	kern_norm_sums_fn *add = cpu_fastest(kern_row_grad_impls)->norm_sums;

#pragma omp parallel for schedule(static) if (job->rows * job->n > MANY)
	for (size_t at = 0; at < job->n; at += ROW_SUM_COLUMNS)
		add(job, at, job->n - at < ROW_SUM_COLUMNS ? job->n - at : ROW_SUM_COLUMNS);
}
