/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_MICM_MASK_H
#define KAMEN_LEARN_MICM_MASK_H

#include <stdbool.h>

#include "base/rng.h"

/** How many of n patches a crop has masked: none for half of the crops, else U(.1, most) of them. */
uint32_t micm_mask_count(struct rng *rng, uint32_t n, float most);
/**
 * Exactly `count` patches of a (grid, grid) in blocks as BEiT draws them (algorithms.md 4.3): area
 * from (grid / 3)^2 to what is left, aspect log-uniform in [.3, 1 / .3], ten tries a block. Where no
 * block fits any more, the rest are single patches.
 */
void micm_mask_draw(struct rng *rng, uint32_t grid, uint32_t count, bool *masked);

#endif
