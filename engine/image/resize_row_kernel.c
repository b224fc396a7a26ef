/* SPDX-License-Identifier: Apache-2.0 */

/* Compiled once per instruction set (KERN_ISA); the compiler does the vectorising. */
#include "image/resize_row.h"

#define PASTE(a, b) a##b
#define NAME(stem, isa) PASTE(stem, isa)

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

void NAME(kern_resize_level_, KERN_ISA)(
	float *restrict dst, const uint8_t *restrict src, size_t n, float scale, float shift)
{
	for (size_t i = 0; i < n; i++)
		dst[i] = (float)src[i] * scale - shift;
}
