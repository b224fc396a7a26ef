/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SIM_NOISE_H
#define KAMEN_SIM_NOISE_H

#include <stdint.h>

/* Fixed point: lengths and levels are in 1/256 (Q8) of a pixel of the 192 px grid, or of a grey. */
#define Q8(x) ((int32_t)((x)*256))
#define NOISE_MID 32640 /* Q8: half of what noise_value() can reach */

static inline int32_t q8_clamp(int32_t x, int32_t low, int32_t high)
{
	return x < low ? low : x > high ? high : x;
}

/** A well mixed number of three. */
uint32_t noise_hash(uint32_t seed, uint32_t x, uint32_t y);
/**
 * Value noise over cells of (cell_u, cell_v), smooth between them.
 *
 * @return 0 to 2 * NOISE_MID
 */
int32_t noise_value(uint32_t seed, int32_t u, int32_t v, int32_t cell_u, int32_t cell_v);
/** The same about 0, reaching to +-amplitude grey levels (Q8). */
int32_t noise_level(
	uint32_t seed, int32_t u, int32_t v, int32_t cell_u, int32_t cell_v, int32_t amplitude);
/** Integer square root, rounded down. */
uint32_t noise_sqrt(uint64_t x);

#endif
