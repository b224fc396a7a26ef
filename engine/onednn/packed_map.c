/* SPDX-License-Identifier: Apache-2.0 */
#include "onednn/packed_map.h"

#include <errno.h>
#include <string.h>

#include "onednn/dnnl_glue.h"

#define N_DIMS 2

void packed_map_free(struct packed_map *map)
{
	if (!map)
		return;
	free(map->rows);
	free(map->columns);
	free(map);
}

/* What the tables below can say: blocks of two dimensions, and nothing beside them. */
static bool is_understood(const struct packed *packed)
{
	const dnnl_memory_desc_t *desc = &packed->desc;

	return desc->ndims == N_DIMS && desc->format_kind == dnnl_blocked && desc->offset0 == 0 &&
	       desc->extra.flags == dnnl_memory_extra_flag_none && desc->padded_offsets[0] == 0 &&
	       desc->padded_offsets[1] == 0 &&
	       desc->data_type == precision_type(packed->precision) &&
	       dnnl_memory_desc_get_size(desc) / precision_bytes(packed->precision) <= INT32_MAX;
}

/* An index takes part in the blocks of its own dimension only: its share of the offset is its own. */
static void fill_offsets(uint32_t *offsets, const dnnl_memory_desc_t *desc, int dim)
{
	const dnnl_blocking_desc_t *blocking = &desc->format_desc.blocking;

	for (int64_t i = 0; i < desc->dims[dim]; i++) {
		int64_t left = i, stride = 1, offset = 0;

		for (int b = blocking->inner_nblks - 1; b >= 0; b--) {
			if (blocking->inner_idxs[b] == dim) {
				offset += left % blocking->inner_blks[b] * stride;
				left /= blocking->inner_blks[b];
			}
			stride *= blocking->inner_blks[b];
		}
		offsets[i] = (uint32_t)(offset + left * blocking->strides[dim]);
	}
}

static uint32_t largest(const uint32_t *values, uint32_t n)
{
	uint32_t most = 0;

	for (uint32_t i = 0; i < n; i++)
		most = values[i] > most ? values[i] : most;
	return most;
}

/* Such as the blocks of 64 that a right-hand side comes in, where its columns are our rows. */
static void find_groups(struct packed_map *map)
{
	const uint32_t n_beyond = largest(map->columns, map->n_columns);

	for (uint32_t n = 16; n <= 64 && n < map->n_rows; n += 16)
		if (map->rows[n] > largest(map->rows, n) + n_beyond) {
			map->group_rows = n;
			map->group_stride = map->rows[n];
			return;
		}
}

/* Exact while n_rows n_columns^2 < 2^shift: the multiplier is too large by less than
 * n_columns / 2^shift of itself. */
static bool find_multiplier(struct packed_map *map)
{
	const uint64_t n_columns = map->n_columns, n = n_columns * map->n_rows;

	for (map->shift = 63; map->shift > 31; map->shift--) {
		map->multiplier = (UINT64_C(1) << map->shift) / n_columns + 1;
		if (map->multiplier <= UINT64_MAX / n)
			return n * n_columns < UINT64_C(1) << map->shift;
	}
	return false;
}

/* What tells places apart, and then values that are too small to be normal. */
enum pattern { PATTERN_ANY, PATTERN_SMALL, N_PATTERNS };

static uint32_t value_at(enum pattern pattern, uint32_t p)
{
	uint32_t bits = (p + 1) * UINT32_C(2654435761);

	bits ^= bits >> 15;
	if (pattern == PATTERN_SMALL)
		return bits & 0x807fffff;
	/* A NaN would not come back as it went. */
	return (bits & 0x7f800000) == 0x7f800000 ? bits ^ 0x40000000 : bits;
}

/* Of int8, where every value is a normal one: another byte for each pattern. */
static uint8_t byte_at(enum pattern pattern, uint32_t p)
{
	return (uint8_t)(value_at(PATTERN_ANY, p) >> (pattern == PATTERN_SMALL ? 8 : 0));
}

static bool is_there(
	const struct packed_map *map, const void *data, enum pattern pattern, uint32_t p)
{
	uint32_t row = packed_map_row(map, p), column = p - row * map->n_columns;
	size_t at = (size_t)map->rows[row] + map->columns[column];
	uint32_t bits = value_at(pattern, p);

	if (row != p / map->n_columns)
		return false;
	if (map->precision == PRECISION_INT8)
		return ((const uint8_t *)data)[at] == byte_at(pattern, p);
	if (map->precision == PRECISION_BF16)
		return ((const uint16_t *)data)[at] == packed_round(bits, map->flushes);
	return ((const uint32_t *)data)[at] == bits;
}

static bool all_are_there(const struct packed_map *map, const void *data, enum pattern pattern)
{
	const uint32_t n = map->n_rows * map->n_columns;
	uint32_t p = 0;

	while (p < n && is_there(map, data, pattern, p))
		p++;
	return p == n;
}

static int check_pattern(
	struct packed_map *map, struct packed *packed, enum pattern pattern, uint32_t *values)
{
	const uint32_t n = map->n_rows * map->n_columns;
	int r;

	for (uint32_t p = 0; p < n; p++)
		if (map->precision == PRECISION_INT8)
			((uint8_t *)values)[p] = byte_at(pattern, p);
		else
			values[p] = value_at(pattern, p);
	r = packed_write(packed, values);
	if (r < 0 || all_are_there(map, packed->data, pattern))
		return r;
	return -EOPNOTSUPP;
}

static int check(struct packed_map *map, struct packed *packed)
{
	const size_t n = (size_t)map->n_rows * map->n_columns;
	_cleanup_(freep) uint32_t *values = malloc(n * sizeof(*values));
	int r;

	if (!values)
		return -ENOMEM;
	/* Some instructions round what is too small to 0. */
	r = check_pattern(map, packed, PATTERN_SMALL, values);
	if (r == -EOPNOTSUPP && map->precision == PRECISION_BF16) {
		map->flushes = true;
		r = check_pattern(map, packed, PATTERN_SMALL, values);
	}
	return r < 0 ? r : check_pattern(map, packed, PATTERN_ANY, values);
}

int packed_map_new(struct packed_map **ret_map, struct packed *packed)
{
	const bool transposed = packed->source == PACKED_N_BY_K;
	_cleanup_(packed_map_freep) struct packed_map *map = calloc(1, sizeof(*map));
	int r;

	if (!map)
		return -ENOMEM;
	if (!is_understood(packed))
		return -EOPNOTSUPP;
	map->precision = packed->precision;
	map->n_rows = (uint32_t)(transposed ? packed->n : packed->k);
	map->n_columns = (uint32_t)(transposed ? packed->k : packed->n);
	map->rows = malloc(map->n_rows * sizeof(*map->rows));
	map->columns = malloc(map->n_columns * sizeof(*map->columns));
	if (!map->rows || !map->columns)
		return -ENOMEM;
	fill_offsets(map->rows, &packed->desc, transposed ? 1 : 0);
	fill_offsets(map->columns, &packed->desc, transposed ? 0 : 1);
	if (!find_multiplier(map))
		return -EOPNOTSUPP;
	find_groups(map);
	r = check(map, packed);
	if (r < 0)
		return r;
	*ret_map = TAKE_PTR(map);
	return 0;
}
