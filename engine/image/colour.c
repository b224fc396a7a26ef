/* SPDX-License-Identifier: Apache-2.0 */
#include "image/colour.h"

#include "image/pixel.h"

void colour_brightness(float *rgb, size_t n, float factor)
{
	kern_pixel()->brightness(rgb, n, factor);
}

void colour_contrast(float *rgb, size_t n, float factor)
{
	kern_pixel()->contrast(rgb, n, factor);
}

void colour_saturation(float *rgb, size_t n, float factor)
{
	kern_pixel()->saturation(rgb, n, factor);
}

void colour_hue(float *rgb, size_t n, float shift)
{
	kern_pixel()->hue(rgb, n, shift);
}

void colour_grey(float *rgb, size_t n)
{
	kern_pixel()->grey(rgb, n);
}

void colour_solarize(float *rgb, size_t n)
{
	kern_pixel()->solarize(rgb, n);
}
