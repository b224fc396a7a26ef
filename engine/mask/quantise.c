/* SPDX-License-Identifier: Apache-2.0 */
#include "mask/quantise.h"

#include <math.h>

#include "base/cpu.h"

/* Of values: enough to be worth another thread. */
#define MANY ((size_t)1 << 15)

const struct kern_quantise_impl kern_quantise_impls[] = {
#ifdef KAMEN_X86
	{ "avx512", "avx512bw", kern_quantise_row_avx512 },
	{ "avx2", "avx2", kern_quantise_row_avx2 },
#endif
	{ "c", NULL, kern_quantise_row_c },
	{ NULL, NULL, NULL },
};

float quantise_inverse(const float *row, size_t n)
{
	float largest = 0, inverse;

	for (size_t i = 0; i < n; i++)
		largest = fabsf(row[i]) > largest ? fabsf(row[i]) : largest;
	inverse = 127 / largest;
	/* Nothing but zeros, or numbers too small to have an inverse. */
	return isfinite(inverse) ? inverse : 0;
}

float quantise_step(float inverse)
{
	return inverse > 0 ? 1 / inverse : 0;
}

void quantise_rows(int8_t *dst, const float *src, const float *inverses, int32_t *sums,
	uint32_t n_rows, uint32_t n)
{
	const struct kern_quantise_impl *impl = cpu_fastest(kern_quantise_impls);

#pragma omp parallel for schedule(static) if ((size_t)n_rows * n > MANY)
	for (uint32_t i = 0; i < n_rows; i++)
		sums[i] = impl->row(dst + (size_t)i * n, src + (size_t)i * n, inverses[i], n);
}
