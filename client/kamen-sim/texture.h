/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SIM_TEXTURE_H
#define KAMEN_SIM_TEXTURE_H

#include "part.h"

#define TEXTURE_MAX_HOLES 9

/** What is the same for all parts of a kind. Coordinates: Q8, from the part's centre. */
struct texture {
	/** Grey level (Q8) of the bare surface. */
	int32_t (*level)(uint32_t seed, int32_t u, int32_t v, int32_t grade);
	int32_t grade; /* what tells the two variants of a material apart, Q8 */
	int32_t hole_radius, hole_half_length;
	uint32_t n_holes;
	int32_t holes[TEXTURE_MAX_HOLES][2];
	int32_t tint[3]; /* of red, green, blue, Q8 */
};

extern const struct texture textures[PART_KINDS];

/** How far (u, v) lies outside of hole i, Q8; negative inside. */
int32_t texture_hole_distance(const struct texture *texture, uint32_t i, int32_t u, int32_t v);

#endif
