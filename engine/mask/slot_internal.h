/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_MASK_SLOT_INTERNAL_H
#define KAMEN_MASK_SLOT_INTERNAL_H

#include "mask/slot.h"
#include "onednn/packed.h"

/* What a layer's product reads: y = (x forward + bias) * scale; dx = (dy backward) * scale. In int8 of
 * x = step (u - zero): y = step * scale * (steps * (u forward) - zero * offsets) + shifts. */
struct slot_entry {
	struct packed *forward;  /* (n_in, n_out): W * M */
	struct packed *backward; /* (n_out, n_in); NULL unless SLOT_LEARN */
	float *bias;             /* b * M_b * alpha_w / alpha_b */
	float scale;             /* 1 / alpha_w */
	/* int8 only, (n_out): what a row's values are in and its inverse, of the base; their sum */
	float *steps, *inverses;
	int32_t *sums;
	float *offsets, *shifts; /* sums * steps and bias * scale */
};

const struct slot_entry *slot_entry(const struct slot *slot, unsigned layer);

#endif
