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

bool kern_pixel_runs_here(const struct kern_pixel_impl *impl)
{
	return cpu_has(impl->cpu);
}

const struct kern_pixel_impl *kern_pixel(void)
{
	const struct kern_pixel_impl *impl = kern_pixel_impls;

	while (!kern_pixel_runs_here(impl))
		impl++;
	return impl;
}
