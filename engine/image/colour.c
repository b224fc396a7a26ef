/* SPDX-License-Identifier: Apache-2.0 */
#include "image/colour.h"

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

void colour_brightness(float *rgb, size_t n, float factor)
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

void colour_contrast(float *rgb, size_t n, float factor)
{
	const float rest = (1 - factor) * mean_luma(rgb, n);

	for (size_t i = 0; i < 3 * n; i++)
		rgb[i] = clamp01(rgb[i] * factor + rest);
}

void colour_saturation(float *rgb, size_t n, float factor)
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

void colour_hue(float *rgb, size_t n, float shift)
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

void colour_grey(float *rgb, size_t n)
{
	float *restrict r = rgb, *restrict g = rgb + n, *restrict b = rgb + 2 * n;

	for (size_t i = 0; i < n; i++) {
		float grey = luma(r[i], g[i], b[i]);

		r[i] = grey;
		g[i] = grey;
		b[i] = grey;
	}
}

void colour_solarize(float *rgb, size_t n)
{
	for (size_t i = 0; i < 3 * n; i++)
		rgb[i] = rgb[i] >= 128 / 255.f ? 1 - rgb[i] : rgb[i];
}
