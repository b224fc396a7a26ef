/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SIM_PART_H
#define KAMEN_SIM_PART_H

#include <stdint.h>

/*
 * Renders a part: a texture of one of PART_KINDS product variants under varying pose, light and
 * noise, with at most one known defect. Integers only, so that (seed, index, size, channels) gives
 * the same pixels on every machine. Frozen: figures are measured on it, and a change would change
 * them; tests/unit/sim_part.c holds its checksums.
 */
#define PART_KINDS 8
#define PART_MIN_PX 160u
#define PART_MAX_PX 256u

enum part_defect {
	PART_GOOD,
	PART_SCRATCH,
	PART_SPOT,
	PART_DENT,
	PART_STAIN,
	PART_MISSING, /* a hole of the product is not there */
	PART_DEFECTS,
};

/** Where the picture differs visibly from the good part; empty (width 0) when good. */
struct part_box {
	uint32_t x, y, width, height;
};

struct part {
	uint32_t kind;
	enum part_defect defect;
	struct part_box box;
};

/** Names as they stand in folders and in _truth.tsv. */
extern const char *const part_kind_names[PART_KINDS];
extern const char *const part_defect_names[PART_DEFECTS];

/**
 * @param pixels        (px, px, n_channels), dense; n_channels 1 or 3, px in [160, 256]
 * @param defects_ppm   of a million parts, how many carry a defect
 */
void part_render(struct part *ret_part, uint8_t *pixels, uint32_t px, uint32_t n_channels,
	uint64_t seed, uint32_t index, uint32_t defects_ppm);

#endif
