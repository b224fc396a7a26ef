/* SPDX-License-Identifier: Apache-2.0 */
#include "model/row_wide.h"

#include "base/cpu.h"

#define ROW(isa, cpu, turn) \
	{ \
#isa, cpu, kern_wide_gelu_##isa, kern_wide_softmax_##isa, kern_wide_norm_##isa, \
			kern_wide_add_##isa, turn \
	}

void kern_wide_turn_c(float *restrict dst, const float *restrict src, size_t stride, size_t n)
{
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < TURN_ROWS; j++)
			dst[i * TURN_ROWS + j] = src[j * stride + i];
}

const struct kern_wide_impl kern_wide_impls[] = {
#ifdef KAMEN_X86
	ROW(avx512, "avx512bw", kern_wide_turn_avx2),
	ROW(avx2, "avx2", kern_wide_turn_avx2),
#endif
	ROW(c, NULL, kern_wide_turn_c),
	{ NULL, NULL, NULL, NULL, NULL, NULL, NULL },
};

const struct kern_wide_impl *kern_wide_fastest(void)
{
	return cpu_fastest(kern_wide_impls);
}
