/* SPDX-License-Identifier: Apache-2.0 */
/* Tiles of bf16 weights, turned from mask to mask whole and place by place. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/cpu.h"
#include "base/rng.h"
#include "mask/tiles.h"

#define SEED 20261123

enum { N_ROWS = 128, N_COLUMNS = 192, N = N_ROWS * N_COLUMNS, N_WORDS = N / 64, N_TURNS = 200 };

struct bench {
	struct packed_map map;
	uint32_t rows[N_ROWS], columns[N_COLUMNS];
	uint16_t base[N], data[N + TILE_LINE];
	uint64_t now[N_WORDS], next[N_WORDS], blank[N_WORDS];
	struct pocket pocket;
	struct mask_layout *layout; /* of the one tensor */
	struct mask *mask;
};

static int setup(void **state)
{
	static const char *const name = "tensor";
	static const size_t n = N;
	struct bench *bench = calloc(1, sizeof(*bench));
	struct rng rng = rng_stream(SEED, 0, 0, 0);

	assert_non_null(bench);
	for (uint32_t r = 0; r < N_ROWS; r++)
		bench->rows[r] = r / 64 * 64 * N_COLUMNS + r % 64 * 2;
	for (uint32_t c = 0; c < N_COLUMNS; c++)
		bench->columns[c] = c / 2 * 128 + c % 2;
	bench->map = (struct packed_map){
		.n_rows = N_ROWS,
		.n_columns = N_COLUMNS,
		.rows = bench->rows,
		.columns = bench->columns,
		.precision = PRECISION_BF16,
		.multiplier = (UINT64_C(1) << 40) / N_COLUMNS + 1,
		.shift = 40,
	};
	for (size_t i = 0; i < N; i++)
		bench->base[i] = (uint16_t)rng_u32(&rng);
	memset(bench->blank, 0xff, sizeof(bench->blank));
	assert_int_equal(pocket_init(&bench->pocket, N, PRECISION_BF16), 0);
	bench->pocket.places = malloc((N + 1) * sizeof(*bench->pocket.places));
	assert_non_null(bench->pocket.places);
	assert_int_equal(mask_layout_new(&bench->layout, 1, &name, &n), 0);
	assert_int_equal(mask_new(&bench->mask, bench->layout), 0);
	*state = bench;
	return 0;
}

static int teardown(void **state)
{
	struct bench *bench = *state;

	pocket_done(&bench->pocket);
	mask_free(bench->mask);
	mask_layout_free(bench->layout);
	free(bench);
	return 0;
}

/* @return how many it drops */
static uint32_t draw(uint64_t *words, struct rng *rng, float keeps)
{
	uint32_t n = 0;

	memset(words, 0xff, N_WORDS * sizeof(*words));
	for (uint32_t p = 0; p < N; p++)
		if (rng_uniform(rng) >= keeps) {
			words[p / 64] &= ~(UINT64_C(1) << p % 64);
			n++;
		}
	return n;
}

static void assert_masked(const struct bench *bench, const uint64_t *words)
{
	for (uint32_t r = 0; r < N_ROWS; r++)
		for (uint32_t c = 0; c < N_COLUMNS; c++) {
			const uint32_t p = r * N_COLUMNS + c;
			const uint32_t place = bench->rows[r] + bench->columns[c];

			assert_int_equal(bench->data[place],
				words[p / 64] >> p % 64 & 1 ? bench->base[place] : 0);
		}
}

static struct tile_job job_of(struct bench *bench, uint32_t n_dropped)
{
	return (struct tile_job){
		.data = bench->data,
		.map = &bench->map,
		.pocket = &bench->pocket,
		.now = bench->now,
		.next = bench->next,
		.blank = bench->blank,
		.n_dropped = n_dropped,
	};
}

static struct mask_rest *rest_of(struct bench *bench)
{
	struct mask_rest *rest;

	memcpy(bench->mask->words, bench->next, sizeof(bench->next));
	mask_count(bench->mask);
	assert_int_equal(mask_rest_new(&rest, bench->mask), 0);
	return rest;
}

/* By its bits, or by its gaps and with no bits to see. */
static void turn(
	struct bench *bench, struct tile_job *job, const struct kern_tiles_impl *impl, bool by_gaps)
{
	_cleanup_(mask_rest_freep) struct mask_rest *rest = rest_of(bench);
	static uint64_t none[N_WORDS];
	struct mask_gaps gaps;

	if (by_gaps) {
		assert_true(mask_rest_gaps(&gaps, rest, bench->layout, 0));
		job->gaps = &gaps;
		job->next = none;
	}
	tiles_write(job, impl);
}

static void reset(struct bench *bench)
{
	memcpy(bench->data, bench->base, sizeof(bench->base));
	memcpy(bench->now, bench->blank, sizeof(bench->now));
	bench->pocket.n = 0;
	bench->pocket.in_order = false;
}

static const float keeps[] = { 1, .999F, .99F, .95F, .9F, .5F, 0, .998F };

/* Few and many, one after the other in any order, by every kernel. */
static void every_turn_leaves_what_the_mask_keeps(void **state)
{
	struct bench *bench = *state;

	for (const struct kern_tiles_impl *impl = kern_tiles_impls; impl->name; impl++) {
		struct rng rng = rng_stream(SEED, 1, 0, 0);
		unsigned n_in_order = 0, n_by_gaps = 0;

		if (!cpu_has(impl->cpu)) {
			print_message("skipped: %s\n", impl->name);
			continue;
		}
		reset(bench);
		for (unsigned i = 0; i < N_TURNS; i++) {
			const float share = keeps[rng_u32(&rng) % ARRAY_SIZE(keeps)];
			struct tile_job job = job_of(bench, draw(bench->next, &rng, share));
			const bool by_gaps = tiles_are_few(&job, impl) && rng_u32(&rng) % 2;

			turn(bench, &job, impl, by_gaps);
			n_by_gaps += by_gaps;
			if (bench->pocket.in_order)
				assert_memory_equal(bench->now, bench->next, sizeof(bench->now));
			assert_masked(bench, bench->next);
			n_in_order += bench->pocket.in_order;
		}
		assert_in_range(n_in_order, N_TURNS / 8, N_TURNS - N_TURNS / 8);
		assert_true(n_by_gaps > N_TURNS / 16);
	}
}

/* As many, and all but the last the same. */
static void move_last(uint64_t *words)
{
	uint32_t last = N - 1, to;

	while (words[last / 64] >> last % 64 & 1)
		last--;
	for (to = last - 1; !(words[to / 64] >> to % 64 & 1);)
		to--;
	words[last / 64] |= UINT64_C(1) << last % 64;
	words[to / 64] &= ~(UINT64_C(1) << to % 64);
}

/* A canary stands where a 0 is: whoever wrote again would put one there. */
static void only_the_same_mask_again_writes_nothing(void **state)
{
	struct bench *bench = *state;
	const struct kern_tiles_impl *impl = kern_tiles_fastest();
	struct rng rng = rng_stream(SEED, 3, 0, 0);
	struct tile_job job;
	uint32_t n_dropped, place;

	reset(bench);
	n_dropped = draw(bench->next, &rng, .998F);
	assert_true(n_dropped > 1);
	for (unsigned i = 0; i < 4; i++) {
		job = job_of(bench, n_dropped);
		turn(bench, &job, impl, i % 2);
		assert_masked(bench, bench->next);
		place = bench->pocket.places[n_dropped - 1];
		bench->data[place] = 12345;
		job = job_of(bench, n_dropped);
		turn(bench, &job, impl, i / 2);
		assert_int_equal(bench->data[place], 12345);
		bench->data[place] = 0;
		move_last(bench->next);
	}
}

static void every_kernel_agrees_with_the_reference(void **state)
{
	struct bench *bench = *state;
	struct rng rng = rng_stream(SEED, 2, 0, 0);

	for (unsigned i = 0; i < ARRAY_SIZE(keeps); i++)
		for (const struct kern_tiles_impl *impl = kern_tiles_impls; impl->name; impl++) {
			static uint16_t expected[N + TILE_LINE], kept[N + TILE_LINE];
			uint32_t found[N_WORDS], indices[N_WORDS];
			struct tile_turn turn = { .data = expected,
				.n_rows = N_ROWS,
				.n_columns = N_COLUMNS,
				.now = bench->now,
				.next = bench->next,
				.from = bench->base,
				.to = kept };
			uint32_t n;

			if (!cpu_has(impl->cpu))
				continue;
			(void)draw(bench->now, &rng, keeps[ARRAY_SIZE(keeps) - 1 - i]);
			n = draw(bench->next, &rng, keeps[i]);
			memcpy(expected, bench->base, sizeof(bench->base));
			memcpy(bench->data, bench->base, sizeof(bench->base));
			kern_tiles_turn_c(&turn);
			turn.data = bench->data;
			turn.to = bench->pocket.values;
			impl->turn(&turn);
			assert_memory_equal(bench->data, expected, sizeof(bench->base));
			assert_memory_equal(bench->pocket.values, kept, n * sizeof(*kept));
			for (uint32_t words = 0; words < N_WORDS; words += 1 + words / 2) {
				n = kern_tiles_lacking_c(indices, bench->next, words);
				assert_int_equal(impl->lacking(found, bench->next, words), n);
				assert_memory_equal(found, indices, n * sizeof(*found));
			}
		}
}

static void other_layouts_are_no_tiles(void **state)
{
	struct bench *bench = *state;
	struct packed_map map = bench->map;

	assert_true(tiles_fit(&map));
	map.precision = PRECISION_F32;
	assert_false(tiles_fit(&map));
	map = bench->map;
	map.n_rows = N_ROWS - 1;
	assert_false(tiles_fit(&map));
	map = bench->map;
	map.n_columns = N_COLUMNS - 32;
	assert_false(tiles_fit(&map));
	map = bench->map;
	bench->columns[3]++;
	assert_false(tiles_fit(&map));
	bench->columns[3]--;
	bench->rows[N_ROWS - 1]--;
	assert_false(tiles_fit(&map));
	bench->rows[N_ROWS - 1]++;
	assert_true(tiles_fit(&map));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			every_turn_leaves_what_the_mask_keeps, setup, teardown),
		cmocka_unit_test_setup_teardown(
			only_the_same_mask_again_writes_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(
			every_kernel_agrees_with_the_reference, setup, teardown),
		cmocka_unit_test_setup_teardown(other_layouts_are_no_tiles, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
