/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_MASK_PLACES_H
#define KAMEN_MASK_PLACES_H

#include "mask/flips.h"
#include "mask/rest.h"

/*
 * A packed copy, f32 or bf16, that lacks few values, and knows where: from mask to mask those are put
 * back and others taken, and no bits of the mask to come are looked at.
 */
struct places {
	void *data;
	const struct packed_map *map;
	struct pocket *pocket; /* n values taken, of as many places */
};

/** All that was taken. */
void places_put_back(const struct places *places);

/** Takes the values of the places found from the n-th on, up to the end-th. */
void places_take_until(const struct places *places, uint32_t end);

/** Takes all that gaps say, which are then read, and nothing else. */
void places_take(const struct places *places, struct mask_gaps *gaps);

/** Whether what was taken is what gaps say, of which there are as many. */
bool places_are(const struct places *places, const struct mask_gaps *gaps);

/** Finds the places of what a mask drops, ascending by position, whose values the pocket has: n then. */
void places_find(const struct places *places, const uint64_t *words);

#endif
