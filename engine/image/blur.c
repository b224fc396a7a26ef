/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>

#include "image/blur.h"
#include "image/pixel.h"

static void gaussian(float *kernel, unsigned n_taps, float sigma)
{
	double weights[BLUR_MAX_TAPS], sum = 0;

	for (unsigned i = 0; i < n_taps; i++) {
		double x = ((double)i - (n_taps - 1) / 2.0) / (double)sigma;

		weights[i] = exp(-0.5 * x * x);
		sum += weights[i];
	}
	for (unsigned i = 0; i < n_taps; i++)
		kernel[i] = (float)(weights[i] / sum);
}

void blur_planes(float *planes, uint32_t px, unsigned n_taps, float sigma, float *scratch)
{
	float kernel[BLUR_MAX_TAPS];

	gaussian(kernel, n_taps, sigma);
	for (unsigned c = 0; c < 3; c++)
		kern_pixel()->blur(planes + (size_t)c * px * px, px, kernel, n_taps, scratch);
}
