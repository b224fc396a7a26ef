/* SPDX-License-Identifier: Apache-2.0 */
#include "mask/flips.h"

#include <errno.h>
#include <string.h>

#include "mask/quantise.h"

/* As many flips as have their cache lines asked for before the first is written: more than can be
 * under way, few enough that the lines are still there. */
enum { N_AT_ONCE = 256, N_WORDS_AT_ONCE = 64, LINE = 64 };

/* Which of the masks drop a position cannot be foreseen: no branch below asks for it, nor may a
 * conditional expression become one, so that they are all ones or zeros to be and-ed. */
struct flips {
	unsigned n;
	uint32_t positions[N_AT_ONCE]; /* in the tensor, ascending */
	uint32_t was[N_AT_ONCE];       /* dropped by now: all ones, else 0 */
	uint32_t will[N_AT_ONCE];      /* dropped by next */
	uint32_t own[N_AT_ONCE];       /* bits of the weight's value, where it was dropped */
	uint32_t places[N_AT_ONCE];
};

/* What goes on over a tensor's batches. */
struct walk {
	const struct flip_job *job;
	bool from_pocket, to_pocket;
	uint32_t n_old, n_new; /* values taken from the pocket, and put into it */
	size_t fetched; /* positions whose lines have all been asked for; SIZE_MAX: none is */
};

int pocket_init(struct pocket *pocket, size_t room, enum precision precision)
{
	const size_t n_bytes = (room + N_AT_ONCE) * precision_bytes(precision);

	/* The last batch reads and writes one value more than it means. */
	pocket->values = malloc(n_bytes);
	pocket->spare = malloc(n_bytes);
	pocket->room = (uint32_t)room;
	pocket->valid = false;
	return pocket->values && pocket->spare ? 0 : -ENOMEM;
}

void pocket_done(struct pocket *pocket)
{
	free(pocket->values);
	free(pocket->spare);
	free(pocket->places);
}

static enum precision precision_of(const struct flip_job *job)
{
	return job->targets[0].map->precision;
}

static void take_from_base(struct flips *flips, const struct flip_job *job)
{
	const struct packed_map *map = job->targets[0].map;

	/* Where it was not dropped the first value will do: nobody reads it. */
	for (unsigned i = 0; i < flips->n; i++)
		__builtin_prefetch(job->values + (flips->positions[i] & flips->was[i]));
	for (unsigned i = 0; i < flips->n; i++) {
		const uint32_t p = flips->positions[i] & flips->was[i];
		const float *value = job->values + p;

		memcpy(&flips->own[i], value, sizeof(*value));
		if (map->precision == PRECISION_INT8)
			flips->own[i] = (uint8_t)quantise_value(
				*value, job->inverses[packed_map_row(map, p)]);
		else if (map->precision == PRECISION_BF16)
			flips->own[i] = packed_round(flips->own[i], map->flushes);
	}
}

static void take_from_pocket(struct flips *flips, struct walk *walk)
{
	const struct pocket *pocket = walk->job->pocket;
	uint32_t at = walk->n_old;

	if (precision_of(walk->job) == PRECISION_INT8)
		for (unsigned i = 0; i < flips->n; at += flips->was[i++] & 1)
			flips->own[i] = ((const uint8_t *)pocket->values)[at];
	else if (precision_of(walk->job) == PRECISION_BF16)
		for (unsigned i = 0; i < flips->n; at += flips->was[i++] & 1)
			flips->own[i] = ((const uint16_t *)pocket->values)[at];
	else
		for (unsigned i = 0; i < flips->n; at += flips->was[i++] & 1)
			flips->own[i] = ((const uint32_t *)pocket->values)[at];
	walk->n_old = at;
}

/* What both masks drop is not touched: such a flip goes to the first place of all, which is at hand,
 * and leaves there what it finds. */
static void find_places(struct flips *flips, const struct flip_target *target)
{
	const struct packed_map *map = target->map;
	const size_t n_bytes = precision_bytes(map->precision);

	for (unsigned i = 0; i < flips->n; i++) {
		uint32_t changes = flips->was[i] ^ flips->will[i];
		uint32_t p = flips->positions[i] & changes, row = packed_map_row(map, p);

		flips->places[i] = map->rows[row] + map->columns[p - row * map->n_columns];
		__builtin_prefetch((char *)target->data + flips->places[i] * n_bytes, 1);
	}
}

/* data[place] = will ? 0 : own, and the weights' own values of what is dropped next to kept. */
#define DEFINE_EXCHANGE(name, type) \
	static uint32_t name(struct flips *flips, type *data, type *kept) \
	{ \
		uint32_t n_kept = 0; \
\
		for (unsigned i = 0; i < flips->n; i++) { \
			uint32_t was = flips->was[i], will = flips->will[i]; \
			type *place = data + flips->places[i]; \
			uint32_t found = *place, own = (flips->own[i] & was) | (found & ~was); \
\
			*place = (type)((own & ~will) | (found & was & will)); \
			kept[n_kept] = (type)own; \
			n_kept += will & 1; \
		} \
		return n_kept; \
	}
DEFINE_EXCHANGE(exchange_f32, uint32_t)
DEFINE_EXCHANGE(exchange_bf16, uint16_t)
DEFINE_EXCHANGE(exchange_int8, uint8_t)

/* Before the values are exchanged: a flip takes the weight's own one from its row's sum, or adds it. */
static void correct_sums(const struct flips *flips, const struct flip_job *job)
{
	const struct flip_target *target = &job->targets[0];
	const uint8_t *data = target->data;

	for (unsigned i = 0; i < flips->n; i++) {
		uint32_t was = flips->was[i], will = flips->will[i];
		uint32_t p = flips->positions[i] & (was ^ will);
		uint32_t own = (flips->own[i] & was) | (data[flips->places[i]] & ~was);
		int32_t value = (int8_t)(uint8_t)own, sign = (int32_t)will - (int32_t)was;

		/* will and was are -1 or 0, so that the sign of a weight that goes is -1. */
		job->sums[packed_map_row(target->map, p)] += sign * value;
	}
}

static uint32_t exchange(struct flips *flips, const struct flip_job *job, unsigned t, void *kept)
{
	const struct flip_target *target = &job->targets[t];

	find_places(flips, target);
	if (target->map->precision == PRECISION_INT8) {
		correct_sums(flips, job);
		return exchange_int8(flips, target->data, kept);
	}
	return target->map->precision == PRECISION_BF16 ? exchange_bf16(flips, target->data, kept)
							: exchange_f32(flips, target->data, kept);
}

static void write_flips(struct flips *flips, struct walk *walk)
{
	const struct flip_job *job = walk->job;
	const size_t n_bytes = precision_bytes(precision_of(job));
	char *spare = job->pocket->spare;
	uint32_t unwanted[N_AT_ONCE];

	if (walk->from_pocket)
		take_from_pocket(flips, walk);
	else
		take_from_base(flips, job);
	for (unsigned t = 1; t < job->n_targets; t++)
		(void)exchange(flips, job, t, unwanted);
	if (walk->to_pocket)
		walk->n_new += exchange(flips, job, 0, spare + walk->n_new * n_bytes);
	else
		(void)exchange(flips, job, 0, unwanted);
	flips->n = 0;
}

/* Where every third line or more has a flip, all of them in a row come faster than those in the
 * flips' order. */
static void fetch_group(struct walk *walk)
{
	const struct flip_target *target = &walk->job->targets[0];
	const struct packed_map *map = target->map;
	const size_t n_bytes = map->group_stride * precision_bytes(map->precision);
	const size_t group = walk->fetched / map->n_columns / map->group_rows;
	const char *data = (const char *)target->data + group * n_bytes;

	/* The last group may not be full. */
	walk->fetched += (size_t)map->group_rows * map->n_columns;
	if (walk->fetched > walk->job->n)
		return;
	for (size_t at = 0; at < n_bytes; at += LINE)
		__builtin_prefetch(data + at, 1);
}

static bool is_dense(const struct flip_job *job)
{
	const struct packed_map *map = job->targets[0].map;

	return map->group_rows > 0 &&
	       job->n_flips > job->n * precision_bytes(map->precision) / LINE / 3;
}

/* Which words have a bit to be looked at; without a branch, for few of many have one. */
static unsigned find_words(unsigned *found, const struct walk *walk, size_t begin, size_t n)
{
	const uint64_t *now = walk->job->now + begin, *next = walk->job->next + begin;
	unsigned n_found = 0;

	if (walk->from_pocket || walk->to_pocket)
		for (unsigned i = 0; i < n; i++) {
			found[n_found] = i;
			n_found += (now[i] & next[i]) != UINT64_MAX;
		}
	else
		for (unsigned i = 0; i < n; i++) {
			found[n_found] = i;
			n_found += now[i] != next[i];
		}
	return n_found;
}

static void take_word(struct flips *flips, const struct walk *walk, size_t w)
{
	const struct flip_job *job = walk->job;
	const size_t n_bits = job->n - w * 64;
	const uint64_t now = job->now[w], next = job->next[w];
	uint64_t wanted = walk->from_pocket || walk->to_pocket ? ~(now & next) : now ^ next;

	if (n_bits < 64)
		wanted &= (UINT64_C(1) << n_bits) - 1;
	for (; wanted; wanted &= wanted - 1) {
		unsigned bit = (unsigned)__builtin_ctzll(wanted);

		flips->positions[flips->n] = (uint32_t)w * 64 + bit;
		flips->was[flips->n] = (uint32_t)(now >> bit & 1) - 1;
		flips->will[flips->n++] = (uint32_t)(next >> bit & 1) - 1;
	}
	job->now[w] = next;
}

void flips_write(const struct flip_job *job)
{
	const size_t n_words = (job->n + 63) / 64;
	struct pocket *pocket = job->pocket;
	struct walk walk = { .job = job,
		.from_pocket = pocket->valid,
		.to_pocket = job->n_dropped <= pocket->room,
		.fetched = is_dense(job) ? 0 : SIZE_MAX };
	struct flips flips;
	void *values = pocket->values;

	flips.n = 0;
	for (size_t begin = 0; begin < n_words; begin += N_WORDS_AT_ONCE) {
		size_t n = n_words - begin < N_WORDS_AT_ONCE ? n_words - begin : N_WORDS_AT_ONCE;
		unsigned found[N_WORDS_AT_ONCE], n_found;

		n_found = find_words(found, &walk, begin, n);
		for (unsigned i = 0; i < n_found; i++) {
			if (flips.n > N_AT_ONCE - 64)
				write_flips(&flips, &walk);
			if ((begin + found[i]) * 64 >= walk.fetched)
				fetch_group(&walk);
			take_word(&flips, &walk, begin + found[i]);
		}
	}
	write_flips(&flips, &walk);
	pocket->valid = walk.to_pocket;
	if (walk.to_pocket) {
		pocket->values = pocket->spare;
		pocket->spare = values;
	}
}

size_t flips_count(const uint64_t *now, const uint64_t *next, size_t n_words)
{
	size_t n = 0;

	for (size_t w = 0; w < n_words; w++)
		n += (size_t)__builtin_popcountll(now[w] ^ next[w]);
	return n;
}
