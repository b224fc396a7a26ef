/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_ONEDNN_PACKED_MAP_H
#define KAMEN_ONEDNN_PACKED_MAP_H

#include "onednn/packed.h"

/**
 * Where the elements of a plain matrix lie in a packed one, and what they are there, so that a few
 * can be written without packing all. It serves every packed matrix of the shape, the source and
 * the precision it was made from, and needs none of them.
 */
struct packed_map {
	uint32_t n_rows, n_columns; /* of the plain matrix */
	uint32_t *rows, *columns;   /* element (r, c) lies at rows[r] + columns[c] */
	enum precision precision;
	bool flushes; /* bf16: values below the normal ones become 0 */
	/* Rows that lie together and apart from all others, and elements from one such group to the
	 * next; 0: there are none */
	uint32_t group_rows, group_stride;
	/* p / n_columns is p * multiplier >> shift, for every p of the matrix */
	uint64_t multiplier;
	unsigned shift;
};

/**
 * From the blocking that oneDNN chose, and checked: a matrix of random bits is packed by oneDNN
 * and every element looked up. Content of packed is undefined afterwards.
 *
 * @return 0, -EOPNOTSUPP: a layout that is not understood, -ENOMEM, -EIO
 */
int packed_map_new(struct packed_map **ret_map, struct packed *packed);
void packed_map_free(struct packed_map *map);
DEFINE_CLEANUP(struct packed_map *, packed_map_free)

static inline uint32_t packed_map_row(const struct packed_map *map, uint32_t p)
{
	return (uint32_t)(p * map->multiplier >> map->shift);
}

/* As oneDNN's reorder does it: to the nearest even, NaN made quiet. */
static inline uint16_t packed_round(uint32_t bits, bool flushes)
{
	uint32_t magnitude = bits & 0x7fffffff;

	if (magnitude > 0x7f800000)
		return (uint16_t)(bits >> 16 | 0x40);
	if (flushes && magnitude < 0x00800000)
		return (uint16_t)(bits >> 16 & 0x8000);
	return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

#endif
