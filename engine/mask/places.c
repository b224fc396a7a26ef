/* SPDX-License-Identifier: Apache-2.0 */
#include "mask/places.h"

/* So many places or gaps ahead lines are asked for: as many as can be under way, and so few that they
 * are still there. */
enum { AHEAD = 24, GAPS_AT_ONCE = 64 };

static uint32_t place_of(const struct packed_map *map, uint32_t p)
{
	const uint32_t row = packed_map_row(map, p);

	return map->rows[row] + map->columns[p - row * map->n_columns];
}

#define DEFINE_PUT_BACK(name, type) \
	static void name(type *data, const struct pocket *pocket) \
	{ \
		const uint32_t *at = pocket->places; \
		const type *values = pocket->values; \
\
		for (uint32_t i = 0; i < pocket->n; i++) { \
			__builtin_prefetch(data + at[i + AHEAD < pocket->n ? i + AHEAD : i], 1); \
			data[at[i]] = values[i]; \
		} \
	}
DEFINE_PUT_BACK(put_back_f32, uint32_t)
DEFINE_PUT_BACK(put_back_bf16, uint16_t)

#define DEFINE_TAKE(name, type) \
	static void name(type *data, struct pocket *pocket, uint32_t end) \
	{ \
		const uint32_t *at = pocket->places; \
		type *values = pocket->values; \
\
		for (; pocket->n < end; pocket->n++) { \
			type *place = data + at[pocket->n]; \
\
			values[pocket->n] = *place; \
			*place = 0; \
		} \
	}
DEFINE_TAKE(take_f32, uint32_t)
DEFINE_TAKE(take_bf16, uint16_t)

void places_put_back(const struct places *places)
{
	if (places->map->precision == PRECISION_BF16)
		put_back_bf16(places->data, places->pocket);
	else
		put_back_f32(places->data, places->pocket);
}

void places_take_until(const struct places *places, uint32_t end)
{
	if (places->map->precision == PRECISION_BF16)
		take_bf16(places->data, places->pocket, end);
	else
		take_f32(places->data, places->pocket, end);
}

/* @return how many */
static uint32_t find_some(const struct places *places, struct mask_gaps *gaps, uint32_t *found)
{
	const size_t n_bytes = precision_bytes(places->map->precision);
	uint32_t positions[GAPS_AT_ONCE];
	const uint32_t n = mask_gaps_read(gaps, positions, GAPS_AT_ONCE);

	for (uint32_t i = 0; i < n; i++) {
		found[i] = place_of(places->map, positions[i]);
		__builtin_prefetch((char *)places->data + found[i] * n_bytes, 1);
	}
	return n;
}

/* What was found before is taken while the lines of what is found now are under way. */
void places_take(const struct places *places, struct mask_gaps *gaps)
{
	uint32_t end = 0;

	places->pocket->n = 0;
	while (gaps->i < gaps->n) {
		const uint32_t before = end;

		end += find_some(places, gaps, places->pocket->places + end);
		places_take_until(places, before);
	}
	places_take_until(places, end);
}

bool places_are(const struct places *places, const struct mask_gaps *gaps)
{
	struct mask_gaps all = *gaps;
	uint32_t positions[GAPS_AT_ONCE], i = 0;

	/* Seldom more than the first place is looked at. */
	while (all.i < all.n) {
		const uint32_t n = mask_gaps_read(&all, positions, GAPS_AT_ONCE);

		for (uint32_t k = 0; k < n; k++)
			if (place_of(places->map, positions[k]) != places->pocket->places[i++])
				return false;
	}
	return true;
}

void places_find(const struct places *places, const uint64_t *words)
{
	const size_t n = (size_t)places->map->n_rows * places->map->n_columns;
	uint32_t n_found = 0;

	for (size_t w = 0; w * 64 < n; w++) {
		uint64_t dropped = ~words[w];

		if (n - w * 64 < 64)
			dropped &= (UINT64_C(1) << (n - w * 64)) - 1;
		for (; dropped; dropped &= dropped - 1)
			places->pocket->places[n_found++] = place_of(
				places->map, (uint32_t)w * 64 + (uint32_t)__builtin_ctzll(dropped));
	}
	places->pocket->n = n_found;
}
