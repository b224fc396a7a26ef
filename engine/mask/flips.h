/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_MASK_FLIPS_H
#define KAMEN_MASK_FLIPS_H

#include "onednn/packed_map.h"

/** A packed copy of a masked weight. */
struct flip_target {
	void *data;
	const struct packed_map *map;
};

/**
 * What a packed copy has 0 for, in the order of the positions: put back from here it costs nothing,
 * from the base a cache line and often a page each.
 */
struct pocket {
	void *values, *spare; /* (room) in the copy's precision; NULL: there is none */
	uint32_t room;
	bool valid; /* it has them all */
	/* Where the values belong (mask/places.h), while the slot goes by places; NULL: it never does. Room
	 * for as many as its owner lets be dropped that way. */
	uint32_t *places;
	uint32_t n;
	bool in_order; /* of tiles only (mask/tiles.h): values in the order of memory, not of places */
};

int pocket_init(struct pocket *pocket, size_t room, enum precision precision);
void pocket_done(struct pocket *pocket);

/** One tensor from mask `now` to mask `next`, whose bits past its end are 0. */
struct flip_job {
	struct flip_target targets[2]; /* all of one matrix and one precision */
	unsigned n_targets;            /* 1 or 2 */
	const float *values;           /* (n) the weight, as the matrix is stored */
	const float *inverses;         /* int8 only, (n_rows): mask/quantise.h */
	int32_t *sums; /* int8 only, (n_rows): of each row's values, kept up to date */
	struct pocket *pocket;
	uint64_t *now;
	const uint64_t *next;
	size_t n, n_dropped; /* by next */
	size_t n_flips;      /* about, at most */
};

/** Writes the places where the masks differ, and no others: the weight's value where `next` keeps
 * it, else 0. In int8 there is one target. `now` is then `next`. */
void flips_write(const struct flip_job *job);

/** How many there would be. */
size_t flips_count(const uint64_t *now, const uint64_t *next, size_t n_words);

#endif
