/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_IMAGE_PIXEL_H
#define KAMEN_IMAGE_PIXEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The loops over pixels of colour.h and blur.h. Without contraction and with sums in a fixed order:
 * every instruction set gives the same bits.
 */

/** rgb (3, n); amount: factor, or shift of the hue. */
typedef void kern_colour_fn(float *rgb, size_t n, float amount);
typedef void kern_recolour_fn(float *rgb, size_t n);
/** One plane (px, px); kernel (n_taps), 5 or 9; scratch of blur_scratch_floats(). */
typedef void kern_blur_fn(
	float *plane, uint32_t px, const float *kernel, unsigned n_taps, float *scratch);

struct kern_pixel_impl {
	const char *name;
	const char *cpu; /* of cpu_has(); NULL: the reference */
	kern_colour_fn *brightness, *contrast, *saturation, *hue;
	kern_recolour_fn *grey, *solarize;
	kern_blur_fn *blur;
};

/** Fastest first; name NULL ends it. */
extern const struct kern_pixel_impl kern_pixel_impls[];
/** The fastest that this CPU has. */
const struct kern_pixel_impl *kern_pixel(void);

#define KERN_PIXEL_DECLARE(isa) \
	kern_colour_fn kern_brightness_##isa, kern_contrast_##isa, kern_saturation_##isa, \
		kern_hue_##isa; \
	kern_recolour_fn kern_grey_##isa, kern_solarize_##isa; \
	kern_blur_fn kern_blur_##isa
KERN_PIXEL_DECLARE(c);
KERN_PIXEL_DECLARE(avx2);
KERN_PIXEL_DECLARE(avx512);

#endif
