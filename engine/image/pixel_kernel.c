/* SPDX-License-Identifier: Apache-2.0 */

/* Compiled once per instruction set (KERN_ISA); the compiler does the vectorising. */
#include <string.h>

#include "image/blur.h"
#include "image/pixel.h"

#define PASTE(a, b) a##b
#define NAME(stem, isa) PASTE(stem, isa)

/* ITU-R 601 luma, in the digits that torchvision uses. */
#define LUMA_R 0.2989f
#define LUMA_G 0.587f
#define LUMA_B 0.114f
#define N_LANES 16u

static inline float clamp01(float x)
{
	x = x < 0 ? 0 : x;
	return x > 1 ? 1 : x;
}

static inline float luma(float r, float g, float b)
{
	return LUMA_R * r + LUMA_G * g + LUMA_B * b;
}

void NAME(kern_brightness_, KERN_ISA)(float *rgb, size_t n, float factor)
{
	for (size_t i = 0; i < 3 * n; i++)
		rgb[i] = clamp01(rgb[i] * factor);
}

/* Partial sums in a fixed order: the same on every vector width. */
static float mean_luma(const float *rgb, size_t n)
{
	const float *r = rgb, *g = rgb + n, *b = rgb + 2 * n;
	float lanes[N_LANES] = { 0 };
	double sum = 0;
	size_t i = 0;

	for (; i + N_LANES <= n; i += N_LANES)
		for (size_t lane = 0; lane < N_LANES; lane++)
			lanes[lane] += luma(r[i + lane], g[i + lane], b[i + lane]);
	for (; i < n; i++)
		sum += (double)luma(r[i], g[i], b[i]);
	for (size_t lane = 0; lane < N_LANES; lane++)
		sum += (double)lanes[lane];
	return (float)(sum / (double)n);
}

void NAME(kern_contrast_, KERN_ISA)(float *rgb, size_t n, float factor)
{
	const float rest = (1 - factor) * mean_luma(rgb, n);

	for (size_t i = 0; i < 3 * n; i++)
		rgb[i] = clamp01(rgb[i] * factor + rest);
}

void NAME(kern_saturation_, KERN_ISA)(float *rgb, size_t n, float factor)
{
	float *restrict r = rgb, *restrict g = rgb + n, *restrict b = rgb + 2 * n;

	for (size_t i = 0; i < n; i++) {
		float rest = (1 - factor) * luma(r[i], g[i], b[i]);

		r[i] = clamp01(r[i] * factor + rest);
		g[i] = clamp01(g[i] * factor + rest);
		b[i] = clamp01(b[i] * factor + rest);
	}
}

/* One channel of hue h (0..6), value and chroma; from is 5, 3, 1 for red, green, blue. */
static inline float channel(float from, float h, float value, float chroma)
{
	float k = from + h;

	k = k >= 6 ? k - 6 : k;
	k = k < 4 - k ? k : 4 - k;
	return clamp01(value - chroma * clamp01(k));
}

void NAME(kern_hue_, KERN_ISA)(float *rgb, size_t n, float shift)
{
	float *restrict r = rgb, *restrict g = rgb + n, *restrict b = rgb + 2 * n;

	/* Value and chroma do not change, so neither saturation nor a branch is needed. */
	for (size_t i = 0; i < n; i++) {
		float x = r[i], y = g[i], z = b[i];
		float high = x > y ? x : y, low = x < y ? x : y;
		float value = high > z ? high : z;
		float chroma = value - (low < z ? low : z);
		float inverse = 1 / (chroma > 0 ? chroma : 1);
		float from_red = (y - z) * inverse, from_green = 2 + (z - x) * inverse;
		float from_blue = 4 + (x - y) * inverse;
		float h = value == y ? from_green : from_blue;

		h = (value == x ? from_red : h) + 6 * shift;
		h = h < 0 ? h + 6 : h;
		h = h >= 6 ? h - 6 : h;
		r[i] = channel(5, h, value, chroma);
		g[i] = channel(3, h, value, chroma);
		b[i] = channel(1, h, value, chroma);
	}
}

void NAME(kern_grey_, KERN_ISA)(float *rgb, size_t n)
{
	float *restrict r = rgb, *restrict g = rgb + n, *restrict b = rgb + 2 * n;

	for (size_t i = 0; i < n; i++) {
		float grey = luma(r[i], g[i], b[i]);

		r[i] = grey;
		g[i] = grey;
		b[i] = grey;
	}
}

void NAME(kern_solarize_, KERN_ISA)(float *rgb, size_t n)
{
	for (size_t i = 0; i < 3 * n; i++)
		rgb[i] = rgb[i] >= 128 / 255.f ? 1 - rgb[i] : rgb[i];
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

static inline void blur_taps(
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

void NAME(kern_blur_, KERN_ISA)(
	float *plane, uint32_t px, const float *kernel, unsigned n_taps, float *scratch)
{
	if (n_taps == 9)
		blur_taps(plane, px, kernel, 9, scratch);
	else
		blur_taps(plane, px, kernel, 5, scratch);
}
