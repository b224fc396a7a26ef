/* SPDX-License-Identifier: Apache-2.0 */
#include "model/row_int8.h"

#include "base/cpu.h"

/* Of values: enough to be worth another thread. */
#define MANY ((size_t)1 << 14)

#define IMPL(isa, cpu) \
	{ \
#isa, cpu, kern_int8_add_row_##isa, kern_int8_norm_row_##isa, \
			kern_int8_gelu_row_##isa, kern_int8_widen_row_##isa, \
			kern_int8_widen_bf16_row_##isa, kern_int8_narrow_row_##isa, \
			kern_int8_narrow_bf16_row_##isa \
	}

const struct kern_int8_impl kern_int8_impls[] = {
#ifdef KAMEN_X86
	IMPL(avx512, "avx512bw"),
	IMPL(avx2, "avx2"),
#endif
	IMPL(c, NULL),
	{ NULL },
};

void row_int8_norm(const struct row_int8_norm *job)
{
	const struct kern_int8_impl *impl = cpu_fastest(kern_int8_impls);
	const size_t n = job->width;

#pragma omp parallel for schedule(static) if (job->rows * n > MANY)
	for (size_t i = 0; i < job->rows; i++) {
		float *x = job->x + i * n;

		if (job->acc)
			impl->add(x, job->residual + i * job->every * n, job->acc + i * n,
				job->layer, job->steps[i]);
		if (job->norm)
			job->steps[i] = impl->norm(job->dst + i * n, x, job->norm);
	}
}

void row_int8_gelu(uint8_t *dst, int32_t *acc, const struct int8_layer *layer,
	struct row_steps *steps, size_t rows)
{
	kern_int8_gelu_row_fn *gelu = cpu_fastest(kern_int8_impls)->gelu;
	const size_t n = layer->n;

#pragma omp parallel for schedule(static) if (rows * n > MANY)
	for (size_t i = 0; i < rows; i++)
		steps[i] = gelu(dst + i * n, acc + i * n, layer, steps[i]);
}

void row_int8_widen(void *dst, enum precision precision, const int32_t *acc,
	const struct int8_layer *layer, const struct row_steps *steps, size_t rows)
{
	const struct kern_int8_impl *impl = cpu_fastest(kern_int8_impls);
	const bool narrow = precision == PRECISION_BF16;
	kern_int8_widen_row_fn *widen = narrow ? impl->widen_bf16 : impl->widen;
	const size_t n = layer->n, size = precision_bytes(precision);

#pragma omp parallel for schedule(static) if (rows * n > MANY)
	for (size_t i = 0; i < rows; i++)
		widen((char *)dst + i * n * size, acc + i * n, layer, steps[i]);
}

void row_int8_narrow(uint8_t *dst, const void *src, enum precision precision,
	struct row_steps *steps, size_t rows, size_t n)
{
	const struct kern_int8_impl *impl = cpu_fastest(kern_int8_impls);
	const bool narrow = precision == PRECISION_BF16;
	kern_int8_narrow_row_fn *take = narrow ? impl->narrow_bf16 : impl->narrow;
	const size_t size = precision_bytes(precision);

#pragma omp parallel for schedule(static) if (rows * n > MANY)
	for (size_t i = 0; i < rows; i++)
		steps[i] = take(dst + i * n, (const char *)src + i * n * size, n);
}
