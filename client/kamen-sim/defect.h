/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SIM_DEFECT_H
#define KAMEN_SIM_DEFECT_H

#include "base/rng.h"
#include "texture.h"

/** One defect in the part's coordinates (Q8). A plain value. */
struct defect {
	enum part_defect kind;
	int32_t u, v;        /* centre; a scratch's middle */
	int32_t du, dv;      /* a scratch's half length, a dent's light */
	int32_t radius, bow; /* half width of a scratch */
	int32_t strength;    /* grey levels, signed */
	uint32_t hole, seed;
};

/** Draws kind, place and size; a surface defect keeps clear of the holes. */
void defect_draw(struct defect *ret_defect, const struct texture *texture, struct rng *rng);
/** What the defect adds to the surface's level at (u, v), Q8. */
int32_t defect_level(const struct defect *defect, int32_t u, int32_t v);

#endif
