/* SPDX-License-Identifier: Apache-2.0 */
#include "image/resize_row.h"

#include "base/cpu.h"

#define ROW(isa, cpu) \
	{ \
#isa, cpu, kern_resize_split_##isa, kern_resize_across_##isa, \
			kern_resize_down_##isa, kern_resize_level_##isa \
	}

const struct kern_resize_impl kern_resize_impls[] = {
#ifdef KAMEN_X86
	ROW(avx512, "avx512bw"),
	ROW(avx2, "avx2"),
#endif
	ROW(c, NULL),
	{ NULL, NULL, NULL, NULL, NULL, NULL },
};

const struct kern_resize_impl *kern_resize_fastest(void)
{
	return cpu_fastest(kern_resize_impls);
}
