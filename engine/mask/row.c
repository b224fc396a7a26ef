/* SPDX-License-Identifier: Apache-2.0 */
#include "mask/row.h"

#include "base/cpu.h"

void kern_mask_row_c(float *dst, const float *src, const uint64_t *words, size_t n)
{
	for (size_t i = 0; i < n; i++)
		dst[i] = words[i / 64] >> (i % 64) & 1 ? src[i] : 0.f;
}

const struct kern_mask_impl kern_mask_impls[] = {
#ifdef KAMEN_X86
	{ "avx512", "avx512f", kern_mask_row_avx512 },
	{ "avx2", "avx2", kern_mask_row_avx2 },
#endif
	{ "c", NULL, kern_mask_row_c },
	{ NULL, NULL, NULL },
};

kern_mask_row_fn *kern_mask_row(void)
{
	return cpu_fastest(kern_mask_impls)->row;
}
