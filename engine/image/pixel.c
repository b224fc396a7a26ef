/* SPDX-License-Identifier: Apache-2.0 */
#include "image/pixel.h"

#include "base/cpu.h"

#define IMPL(isa, cpu) \
	{ \
#isa, cpu, kern_brightness_##isa, kern_contrast_##isa, kern_saturation_##isa, \
			kern_hue_##isa, kern_grey_##isa, kern_solarize_##isa, kern_blur_##isa \
	}

const struct kern_pixel_impl kern_pixel_impls[] = {
#ifdef KAMEN_X86
	IMPL(avx512, "avx512f"),
	IMPL(avx2, "avx2"),
#endif
	IMPL(c, NULL),
	{ NULL },
};

const struct kern_pixel_impl *kern_pixel(void)
{
	return cpu_fastest(kern_pixel_impls);
}
