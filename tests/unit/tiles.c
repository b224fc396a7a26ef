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
};

static int setup(void **state)
{
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
	*state = bench;
	return 0;
}

static int teardown(void **state)
{
	struct bench *bench = *state;

	pocket_done(&bench->pocket);
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

static const float keeps[] = { 1, .999F, .99F, .95F, .9F, .5F, 0, .998F };

/* Few and many, one after the other in any order, by every kernel. */
static void every_turn_leaves_what_the_mask_keeps(void **state)
{
	struct bench *bench = *state;

	for (const struct kern_tiles_impl *impl = kern_tiles_impls; impl->name; impl++) {
		struct rng rng = rng_stream(SEED, 1, 0, 0);
		unsigned n_in_order = 0;

		if (!cpu_has(impl->cpu)) {
			print_message("skipped: %s\n", impl->name);
			continue;
		}
		memcpy(bench->data, bench->base, sizeof(bench->base));
		memcpy(bench->now, bench->blank, sizeof(bench->now));
		bench->pocket.n = 0;
		bench->pocket.in_order = false;
		for (unsigned i = 0; i < N_TURNS; i++) {
			const float share = keeps[rng_u32(&rng) % ARRAY_SIZE(keeps)];

			tiles_write(
				&(struct tile_job){
					.data = bench->data,
					.map = &bench->map,
					.pocket = &bench->pocket,
					.now = bench->now,
					.next = bench->next,
					.blank = bench->blank,
					.n_dropped = draw(bench->next, &rng, share),
				},
				impl);
			if (bench->pocket.in_order)
				assert_memory_equal(bench->now, bench->next, sizeof(bench->now));
			assert_masked(bench, bench->next);
			n_in_order += bench->pocket.in_order;
		}
		assert_in_range(n_in_order, N_TURNS / 8, N_TURNS - N_TURNS / 8);
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
			every_kernel_agrees_with_the_reference, setup, teardown),
		cmocka_unit_test_setup_teardown(other_layouts_are_no_tiles, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
