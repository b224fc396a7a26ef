/* SPDX-License-Identifier: Apache-2.0 */
#include "mask/tiles.h"

#include <string.h>

#include "base/cpu.h"

const struct kern_tiles_impl kern_tiles_impls[] = {
#ifdef KAMEN_X86
	{ "avx512", "avx512vbmi2", 48, kern_tiles_turn_avx512, kern_tiles_lacking_avx512 },
#endif
	{ "c", NULL, 8, kern_tiles_turn_c, kern_tiles_lacking_c },
	{ NULL, NULL, 0, NULL, NULL },
};

const struct kern_tiles_impl *kern_tiles_fastest(void)
{
	return cpu_fastest(kern_tiles_impls);
}

static uint32_t column_place(uint32_t column)
{
	return column / 2 * (2 * TILE_ROWS) + column % 2;
}

bool tiles_fit(const struct packed_map *map)
{
	bool fits = map->precision == PRECISION_BF16 && map->n_rows % TILE_ROWS == 0 &&
		    map->n_columns % 64 == 0;

	for (uint32_t r = 0; fits && r < map->n_rows; r++)
		fits = map->rows[r] ==
		       r / TILE_ROWS * TILE_ROWS * map->n_columns + r % TILE_ROWS * 2;
	for (uint32_t c = 0; fits && c < map->n_columns; c++)
		fits = map->columns[c] == column_place(c);
	return fits;
}

void kern_tiles_turn_c(const struct tile_turn *turn)
{
	const uint16_t *from = turn->from;
	uint16_t *to = turn->to, *data = turn->data;

	for (uint32_t first = 0; first < turn->n_rows; first += TILE_ROWS)
		for (uint32_t column = 0; column < turn->n_columns; column += 2)
			for (uint32_t i = 0; i < 2 * TILE_ROWS; i++, data++) {
				size_t p =
					(size_t)(first + i / 2) * turn->n_columns + column + i % 2;

				if (!(turn->now[p / 64] >> p % 64 & 1))
					*data = *from++;
				if (turn->next[p / 64] >> p % 64 & 1)
					continue;
				*to++ = *data;
				*data = 0;
			}
}

uint32_t kern_tiles_lacking_c(uint32_t *found, const uint64_t *words, uint32_t n)
{
	uint32_t n_found = 0;

	/* Without a branch: few of many do. */
	for (uint32_t i = 0; i < n; i++) {
		found[n_found] = i;
		n_found += words[i] != UINT64_MAX;
	}
	return n_found;
}

/* ---- place by place */

/* So many words at a time lines are asked for: as many as can be under way, and so few that they are
 * still there. */
enum { WORDS_AT_ONCE = 512 };

static struct places places_of(const struct tile_job *job)
{
	return (struct places){ job->data, job->map, job->pocket };
}

static uint32_t position_of(const struct packed_map *map, uint32_t place)
{
	const uint32_t band = TILE_ROWS * map->n_columns, within = place % band;
	const uint32_t row = place / band * TILE_ROWS + within % (2 * TILE_ROWS) / 2;

	return row * map->n_columns + within / (2 * TILE_ROWS) * 2 + within % 2;
}

/* Places of what some words drop. */
static uint32_t find_in_words(uint32_t *places, const struct tile_job *job, uint32_t begin,
	uint32_t n, const struct kern_tiles_impl *impl)
{
	const struct packed_map *map = job->map;
	const uint32_t n_row = map->n_columns / 64;
	uint32_t found[WORDS_AT_ONCE], n_found = impl->lacking(found, job->next + begin, n);
	uint32_t n_places = 0;

	for (uint32_t i = 0; i < n_found; i++) {
		const uint32_t word = begin + found[i], row = packed_map_row(map, word * 64);
		const uint32_t first = map->rows[row] + (word - row * n_row) * 64 * TILE_ROWS;

		for (uint64_t dropped = ~job->next[word]; dropped; dropped &= dropped - 1) {
			uint32_t place = first + column_place((uint32_t)__builtin_ctzll(dropped));

			__builtin_prefetch(job->data + place, 1);
			places[n_places++] = place;
		}
	}
	return n_places;
}

/* What was found before is taken while the lines of what is found now are under way. */
static void take(const struct tile_job *job, const struct kern_tiles_impl *impl)
{
	const uint32_t n_words = job->map->n_rows * (job->map->n_columns / 64);
	const struct places places = places_of(job);
	uint32_t end = 0;

	if (job->gaps) {
		places_take(&places, job->gaps);
		return;
	}
	job->pocket->n = 0;
	for (uint32_t begin = 0; begin < n_words; begin += WORDS_AT_ONCE) {
		const uint32_t left = n_words - begin, before = end;

		end += find_in_words(job->pocket->places + end, job, begin,
			left < WORDS_AT_ONCE ? left : WORDS_AT_ONCE, impl);
		places_take_until(&places, before);
	}
	places_take_until(&places, end);
}

/* Seldom more than the first place is looked at. */
static bool is_there(const struct tile_job *job)
{
	const struct places places = places_of(job);
	const struct pocket *pocket = job->pocket;

	if (pocket->in_order || pocket->n != job->n_dropped)
		return false;
	if (job->gaps)
		return places_are(&places, job->gaps);
	for (uint32_t i = 0; i < pocket->n; i++) {
		const uint32_t p = position_of(job->map, pocket->places[i]);

		if (job->next[p / 64] >> p % 64 & 1)
			return false;
	}
	return true;
}

static void turn_all(const struct tile_job *job, const struct kern_tiles_impl *impl,
	const uint64_t *now, const uint64_t *next)
{
	struct pocket *pocket = job->pocket;
	void *values = pocket->values;

	impl->turn(&(struct tile_turn){
		.data = job->data,
		.n_rows = job->map->n_rows,
		.n_columns = job->map->n_columns,
		.now = now,
		.next = next,
		.from = pocket->values,
		.to = pocket->spare,
	});
	pocket->values = pocket->spare;
	pocket->spare = values;
}

bool tiles_are_few(const struct tile_job *job, const struct kern_tiles_impl *impl)
{
	const size_t n = (size_t)job->map->n_rows * job->map->n_columns;

	return job->n_dropped <= job->pocket->room &&
	       ((size_t)job->pocket->n + job->n_dropped) * impl->share <= n;
}

void tiles_write(const struct tile_job *job, const struct kern_tiles_impl *impl)
{
	const size_t n = (size_t)job->map->n_rows * job->map->n_columns;
	struct pocket *pocket = job->pocket;
	const bool many = !tiles_are_few(job, impl);
	const struct places places = places_of(job);

	if (is_there(job))
		return;
	if (many && pocket->n > 0 && !pocket->in_order) {
		places_put_back(&places);
		turn_all(job, impl, job->blank, job->next);
	} else if (many) {
		turn_all(job, impl, pocket->n > 0 ? job->now : job->blank, job->next);
	} else if (pocket->n > 0 && pocket->in_order) {
		turn_all(job, impl, job->now, job->blank);
		take(job, impl);
	} else {
		places_put_back(&places);
		take(job, impl);
	}
	pocket->n = job->n_dropped;
	pocket->in_order = many;
	/* Copying it would take a sixth of the time of a switch between masks that drop little. */
	if (many)
		memcpy(job->now, job->next, n / 8);
}
