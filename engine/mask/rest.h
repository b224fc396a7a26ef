/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_MASK_REST_H
#define KAMEN_MASK_REST_H

#include "mask/bits.h"

/**
 * A mask at rest: what a site costs whose mask is in no weight slot. Of each tensor the gaps between
 * the dropped bits, all in the number of bits that takes least room, or its words where those are
 * fewer. At density .998 some 11 bits a dropped weight, where a .kmask has ten and a half; but waking
 * is a few instructions for each, and decoding an arithmetic coder's work. Immutable, so that threads
 * may share it.
 */
struct mask_rest;

int mask_rest_new(struct mask_rest **ret_rest, const struct mask *mask);
void mask_rest_free(struct mask_rest *rest);
DEFINE_CLEANUP(struct mask_rest *, mask_rest_free)

/** All that it holds. */
size_t mask_rest_bytes(const struct mask_rest *rest);
/** Writes the bits; of the layout that the mask had. */
void mask_rest_wake(const struct mask_rest *rest, struct mask *mask);
/** Of one tensor. */
void mask_rest_wake_tensor(const struct mask_rest *rest, struct mask *mask, unsigned tensor);
size_t mask_rest_n_on(const struct mask_rest *rest, unsigned tensor);

/** What a tensor drops, without its bits: where it stands in the list. */
struct mask_gaps {
	const uint8_t *from;
	uint32_t i, n; /* gaps read, and all */
	unsigned width;
	uint32_t at;
};

/** From the first on. False: it has words, for it drops much. */
bool mask_rest_gaps(struct mask_gaps *ret_gaps, const struct mask_rest *rest,
	const struct mask_layout *layout, unsigned tensor);
/** Positions in the tensor, ascending, of the next n gaps, for which there is room; of a long gap there
 * is none. All are read when i is n. @return how many */
uint32_t mask_gaps_read(struct mask_gaps *gaps, uint32_t *positions, uint32_t n);

#endif
