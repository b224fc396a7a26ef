/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "image/blur.h"

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

static inline uint32_t reflect(int64_t i, uint32_t n)
{
	if (i < 0)
		return (uint32_t)-i;
	return i < n ? (uint32_t)i : (uint32_t)(2 * (int64_t)n - 2 - i);
}

/* padded (px + n_taps - 1) -> dst (px). Inlined with a constant n_taps, so that it vectorises. */
static inline void blur_row(float *restrict dst, const float *restrict padded, const float *kernel,
	unsigned n_taps, uint32_t px)
{
	for (uint32_t x = 0; x < px; x++) {
		float sum = 0;

		for (unsigned i = 0; i < n_taps; i++)
			sum += kernel[i] * padded[x + i];
		dst[x] = sum;
	}
}

static inline void blur_column(float *restrict dst, const float *restrict plane,
	const float *kernel, unsigned n_taps, uint32_t px, uint32_t y)
{
	const float *rows[BLUR_MAX_TAPS];

	for (unsigned i = 0; i < n_taps; i++)
		rows[i] = plane + (size_t)px * reflect((int64_t)y + i - n_taps / 2, px);
	for (uint32_t x = 0; x < px; x++) {
		float sum = 0;

		for (unsigned i = 0; i < n_taps; i++)
			sum += kernel[i] * rows[i][x];
		dst[x] = sum;
	}
}

static inline void blur_plane(
	float *plane, uint32_t px, const float *kernel, unsigned n_taps, float *scratch)
{
	const unsigned half = n_taps / 2;
	float *padded = scratch + (size_t)px * px;

	for (uint32_t y = 0; y < px; y++) {
		const float *row = plane + (size_t)y * px;

		memcpy(padded + half, row, px * sizeof(*row));
		for (unsigned i = 1; i <= half; i++) {
			padded[half - i] = row[i];
			padded[half + px - 1 + i] = row[px - 1 - i];
		}
		blur_row(scratch + (size_t)y * px, padded, kernel, n_taps, px);
	}
	for (uint32_t y = 0; y < px; y++)
		blur_column(plane + (size_t)y * px, scratch, kernel, n_taps, px, y);
}

void blur_planes(float *planes, uint32_t px, unsigned n_taps, float sigma, float *scratch)
{
	float kernel[BLUR_MAX_TAPS];

	gaussian(kernel, n_taps, sigma);
	for (unsigned c = 0; c < 3; c++) {
		float *plane = planes + (size_t)c * px * px;

		if (n_taps == 9)
			blur_plane(plane, px, kernel, 9, scratch);
		else
			blur_plane(plane, px, kernel, 5, scratch);
	}
}
