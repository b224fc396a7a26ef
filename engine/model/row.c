/* SPDX-License-Identifier: Apache-2.0 */
#include "model/row.h"

#include "base/cpu.h"

/* Of values: enough to be worth another thread. */
#define N_BLOCK ((size_t)1 << 14)

#define ROW(isa, cpu) \
	{ \
#isa, cpu, kern_gelu_row_##isa, kern_gelu_grad_row_##isa, kern_softmax_row_##isa, \
			kern_norm_row_##isa, kern_cut_row_##isa \
	}

const struct kern_row_impl kern_row_impls[] = {
#ifdef KAMEN_X86
	ROW(avx512, "avx512bw"),
	ROW(avx2, "avx2"),
#endif
	ROW(c, NULL),
	{ NULL, NULL, NULL, NULL, NULL, NULL, NULL },
};

const struct kern_row_impl *kern_row_fastest(void)
{
	return cpu_fastest(kern_row_impls);
}

static size_t block_size(size_t n, size_t at)
{
	return n - at < N_BLOCK ? n - at : N_BLOCK;
}

void row_gelu(bf16 *dst, const bf16 *src, size_t n)
{
	kern_gelu_row_fn *gelu = kern_row_fastest()->gelu;

#pragma omp parallel for schedule(static) if (n > N_BLOCK)
	for (size_t i = 0; i < n; i += N_BLOCK)
		gelu(dst + i, src + i, block_size(n, i));
}

void row_gelu_grad(bf16 *d, const bf16 *x, size_t n)
{
	kern_gelu_grad_row_fn *gelu_grad = kern_row_fastest()->gelu_grad;

#pragma omp parallel for schedule(static) if (n > N_BLOCK)
	for (size_t i = 0; i < n; i += N_BLOCK)
		gelu_grad(d + i, x + i, block_size(n, i));
}

void row_softmax(bf16 *dst, float *src, size_t rows, size_t n, size_t stride)
{
	kern_softmax_row_fn *softmax = kern_row_fastest()->softmax;

#pragma omp parallel for schedule(static) if (rows * n > N_BLOCK)
	for (size_t i = 0; i < rows; i++)
		softmax(dst + i * stride, src + i * stride, n, stride);
}

void row_normalise(bf16 *dst, const float *src, const struct row_norm *norm, size_t rows,
	float *mean, float *variance)
{
	kern_norm_row_fn *normalise = kern_row_fastest()->norm;

#pragma omp parallel for schedule(static) if (rows * norm->n > N_BLOCK)
	for (size_t i = 0; i < rows; i++) {
		float stats[2];

		normalise(dst + i * norm->n, src + i * norm->n, norm, stats);
		if (mean)
			mean[i] = stats[0];
		if (variance)
			variance[i] = stats[1];
	}
}
