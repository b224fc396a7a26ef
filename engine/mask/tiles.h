/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_MASK_TILES_H
#define KAMEN_MASK_TILES_H

#include "mask/places.h"

/*
 * A bf16 weight as AMX reads it: tiles of 64 rows by 32 columns one behind the other, in each of them
 * pairs of columns, of each pair all rows. A cache line is then 16 rows by two columns, and where a
 * position lies needs no table.
 */
enum { TILE_ROWS = 64, TILE_COLUMNS = 32, TILE_LINE = 32, TILE_LINES = 64 };

/** Whether the copy is of such tiles, and each row of whole words of the mask. */
bool tiles_fit(const struct packed_map *map);

/** A whole matrix from one mask to another, in the order of memory. */
struct tile_turn {
	uint16_t *data;
	uint32_t n_rows, n_columns;
	const uint64_t *now, *next;
	const uint16_t
		*from; /* what now drops, in the order of memory; TILE_LINE more may be read */
	uint16_t *to;  /* what next drops, likewise; TILE_LINE more may be written */
};

struct kern_tiles_impl {
	const char *name;
	const char *cpu; /* of cpu_has(); NULL: the reference */
	/* Where two masks together drop more than one weight in so many, turn is faster than place by
	 * place */
	uint32_t share;
	void (*turn)(const struct tile_turn *turn);
	/** Which words have a 0: their indices, n more may be written. @return how many */
	uint32_t (*lacking)(uint32_t *found, const uint64_t *words, uint32_t n);
};

/** Fastest first; name NULL ends it. */
extern const struct kern_tiles_impl kern_tiles_impls[];
const struct kern_tiles_impl *kern_tiles_fastest(void);

void kern_tiles_turn_c(const struct tile_turn *turn);
void kern_tiles_turn_avx512(const struct tile_turn *turn);
uint32_t kern_tiles_lacking_c(uint32_t *found, const uint64_t *words, uint32_t n);
uint32_t kern_tiles_lacking_avx512(uint32_t *found, const uint64_t *words, uint32_t n);

/** One tensor from mask `now`, of which the pocket has all, to mask `next`, which drops no more than
 * the pocket has room for. */
struct tile_job {
	uint16_t *data;
	const struct packed_map *map;
	struct pocket *pocket; /* with places */
	uint64_t *now;
	const uint64_t *next, *blank; /* blank: all kept */
	struct mask_gaps *gaps; /* of next, whose bits are then not read; NULL: there are none */
	uint32_t n_dropped;     /* by next */
};

/** Whether it will go place by place; else there may be no gaps. */
bool tiles_are_few(const struct tile_job *job, const struct kern_tiles_impl *impl);

/** Writes nothing where places say that it is so already. `now` is then `next` where the pocket is in
 * order; else it is as it was, and the places say it. */
void tiles_write(const struct tile_job *job, const struct kern_tiles_impl *impl);

#endif
