/* SPDX-License-Identifier: Apache-2.0 */
#include "noise.h"

/* Added to a coordinate so that no lattice index and no remainder is ever negative. */
enum { BIAS = 4096 * 256 };

uint32_t noise_hash(uint32_t seed, uint32_t x, uint32_t y)
{
	uint32_t h = seed ^ (x * 0x9e3779b1u) ^ (y * 0x85ebca77u);

	h ^= h >> 16;
	h *= 0x7feb352du;
	h ^= h >> 15;
	h *= 0x846ca68bu;
	return h ^ (h >> 16);
}

static int32_t smooth(int32_t f)
{
	return (f * f * (3 * 256 - 2 * f)) >> 16;
}

static int32_t corner(uint32_t seed, uint32_t x, uint32_t y)
{
	return (int32_t)(noise_hash(seed, x, y) >> 24);
}

int32_t noise_value(uint32_t seed, int32_t u, int32_t v, int32_t cell_u, int32_t cell_v)
{
	uint32_t x = (uint32_t)(((uint64_t)(uint32_t)(u + BIAS) << 8) / (uint32_t)cell_u);
	uint32_t y = (uint32_t)(((uint64_t)(uint32_t)(v + BIAS) << 8) / (uint32_t)cell_v);
	uint32_t ix = x >> 8, iy = y >> 8;
	int32_t fx = smooth((int32_t)(x & 255)), fy = smooth((int32_t)(y & 255));
	int32_t top = corner(seed, ix, iy) * (256 - fx) + corner(seed, ix + 1, iy) * fx;
	int32_t bottom = corner(seed, ix, iy + 1) * (256 - fx) + corner(seed, ix + 1, iy + 1) * fx;

	return (top * (256 - fy) + bottom * fy) >> 8;
}

int32_t noise_level(
	uint32_t seed, int32_t u, int32_t v, int32_t cell_u, int32_t cell_v, int32_t amplitude)
{
	return (noise_value(seed, u, v, cell_u, cell_v) - NOISE_MID) * amplitude / 128;
}

uint32_t noise_sqrt(uint64_t x)
{
	uint64_t root = 0;

	for (uint64_t bit = UINT64_C(1) << 62; bit > 0; bit >>= 2) {
		if (x >= root + bit) {
			x -= root + bit;
			root = (root >> 1) + bit;
		} else {
			root >>= 1;
		}
	}
	return (uint32_t)root;
}
