/* SPDX-License-Identifier: Apache-2.0 */

/* Compiled once per instruction set (KERN_ISA); the compiler does the vectorising. */
#include "image/resize_row.h"

#define PASTE(a, b) a##b
#define NAME(stem, isa) PASTE(stem, isa)

static inline uint8_t round_clip(int32_t sum, unsigned fraction_bits)
{
	int32_t value = (sum + (1 << (fraction_bits - 1))) >> fraction_bits;

	return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

void NAME(kern_resize_split_, KERN_ISA)(int16_t *restrict planes, size_t n_plane,
	const uint8_t *restrict src, uint32_t n, unsigned n_channels)
{
	int16_t *restrict r = planes, *restrict g = planes + n_plane, *restrict b = g + n_plane;

	if (n_channels == 1)
		for (uint32_t x = 0; x < n; x++)
			r[x] = src[x];
	else
		for (uint32_t x = 0; x < n; x++) {
			r[x] = src[3 * (size_t)x];
			g[x] = src[3 * (size_t)x + 1];
			b[x] = src[3 * (size_t)x + 2];
		}
}

static inline void across(uint8_t *restrict dst, const int16_t *restrict plane, uint32_t first,
	const struct resize_axis *axis, uint32_t n_taps)
{
	for (uint32_t x = 0; x < axis->n_dst; x++) {
		const int16_t *weights = axis->weights + (size_t)x * n_taps;
		const int16_t *p = plane + (axis->spans[x].begin - first);
		int32_t sum = 0;

		for (uint32_t i = 0; i < n_taps; i++)
			sum += p[i] * weights[i];
		dst[x] = round_clip(sum, axis->fraction_bits);
	}
}

void NAME(kern_resize_across_, KERN_ISA)(uint8_t *restrict dst, const int16_t *restrict plane,
	uint32_t first, const struct resize_axis *axis)
{
	/* The usual reductions by less than two: without loops over taps. */
	if (axis->n_blocks == 1)
		across(dst, plane, first, axis, RESIZE_BLOCK);
	else
		across(dst, plane, first, axis, axis->n_blocks * RESIZE_BLOCK);
}

void NAME(kern_resize_down_, KERN_ISA)(uint8_t *restrict dst, const uint8_t *restrict rows,
	size_t n, const int16_t *restrict weights, uint32_t n_rows, unsigned fraction_bits)
{
	/* Over columns, so that the sums stay in registers. */
#pragma omp simd
	for (size_t x = 0; x < n; x++) {
		int32_t sum = 0;

		for (uint32_t i = 0; i < n_rows; i++)
			sum += rows[i * n + x] * weights[i];
		dst[x] = round_clip(sum, fraction_bits);
	}
}

void NAME(kern_resize_level_, KERN_ISA)(
	float *restrict dst, const uint8_t *restrict src, size_t n, float scale, float shift)
{
	for (size_t i = 0; i < n; i++)
		dst[i] = (float)src[i] * scale - shift;
}
