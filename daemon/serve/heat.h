/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_HEAT_H
#define KAMEN_SERVE_HEAT_H

#include "engine.h"
#include "serve/serving.h"
#include "shm_layout.h"

/**
 * Hardness maps for one thread that computes. What a version learnt of hardness is read when the
 * first request asks for it, and stays while it is among the last few that were asked for: a site
 * of which nobody asks costs a path.
 */
struct heat;

int heat_new(struct heat **ret_heat, struct vit *vit);
void heat_free(struct heat *heat);

/**
 * @param tokens    (1 + grid^2, width) of one image under the version's mask; NULL: of a cascade
 * @param values    (SHM_MAX_HARDNESS_SIDE^2) rows from the top down; the first side^2 are written
 * @param ret_side  of the map: grid, or what is left of it where that is too large
 * @param ret_reason  static; set on failure
 * @return 0, -ENODATA: the version has none, -EBADMSG: its file is damaged, or another errno
 */
int heat_of(struct heat *heat, const struct serving *serving, const float *tokens, uint32_t grid,
	float *values, uint32_t *ret_side, const char **ret_reason);

/** Means over squares of a map (side, side), the fewest that fit the largest side that an answer has;
 * out may be map. @return the side that is left */
uint32_t heat_shrink(float *out, const float *map, uint32_t side);

#endif
