/* SPDX-License-Identifier: Apache-2.0 */
#include "learn/optimiser.h"

#include "base/cpu.h"

#define N_BLOCK ((size_t)1 << 16)

const struct kern_optimiser_impl kern_optimiser_impls[] = {
#ifdef KAMEN_X86
	{ "avx512", "avx512f", kern_adam_row_avx512, kern_sgd_row_avx512 },
	{ "avx2", "avx2", kern_adam_row_avx2, kern_sgd_row_avx2 },
#endif
	{ "c", NULL, kern_adam_row_c, kern_sgd_row_c },
	{ NULL, NULL, NULL, NULL },
};

const struct kern_optimiser_impl *kern_optimiser(void)
{
	return cpu_fastest(kern_optimiser_impls);
}

static size_t block_size(size_t n, size_t at)
{
	return n - at < N_BLOCK ? n - at : N_BLOCK;
}

struct kern_adam_step kern_adam_step(
	double beta1, double beta2, double eps, float lr, uint32_t step)
{
	return (struct kern_adam_step){
		.beta1 = (float)beta1,
		.beta2 = (float)beta2,
		.eps = (float)eps,
		.rate = (float)(lr / (1 - pow(beta1, step))),
		.root_bias = (float)sqrt(1 - pow(beta2, step)),
		.keep = 1,
	};
}

struct kern_adam_step optimiser_adam_step(float lr, uint32_t step)
{
	return kern_adam_step(.9, .99, 1e-8, lr, step);
}

void optimiser_adam(float *params, float *first, float *second, const float *grad, size_t n,
	float lr, uint32_t step)
{
	kern_adam_row_fn *row = kern_optimiser()->adam;
	const struct kern_adam_step s = optimiser_adam_step(lr, step);

#pragma omp parallel for schedule(static)
	for (size_t i = 0; i < n; i += N_BLOCK)
		row(params + i, first + i, second + i, grad + i, block_size(n, i), &s);
}

void optimiser_sgd(float *params, float *velocity, const float *grad, size_t n, float lr)
{
	kern_sgd_row_fn *row = kern_optimiser()->sgd;

#pragma omp parallel for schedule(static)
	for (size_t i = 0; i < n; i += N_BLOCK)
		row(params + i, velocity + i, grad + i, block_size(n, i), lr, OPTIMISER_MOMENTUM);
}
