/* SPDX-License-Identifier: Apache-2.0 */
#include "model/row_wide.h"

#include "base/cpu.h"

#define ROW(isa, cpu) \
	{ \
#isa, cpu, kern_wide_gelu_##isa, kern_wide_softmax_##isa, kern_wide_norm_##isa, \
			kern_wide_add_##isa \
	}

const struct kern_wide_impl kern_wide_impls[] = {
#ifdef KAMEN_X86
	ROW(avx512, "avx512bw"),
	ROW(avx2, "avx2"),
#endif
	ROW(c, NULL),
	{ NULL, NULL, NULL, NULL, NULL, NULL },
};

const struct kern_wide_impl *kern_wide_fastest(void)
{
	return cpu_fastest(kern_wide_impls);
}
