/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>

#include "adapt_table.h"
#include "base/cleanup.h"

#define N_HELD 100u
#define N_EPISODES 4u

/** What an arm comes to. */
struct told {
	double knn, shot1, shot5, ms;
	int passed;
};

/** A set at one size: what its arms come to. */
struct story {
	const char *set;
	bool at_native, is_full;
	uint32_t n_seeds;
	struct told frozen, native, adapted[3];
};

/* All lines of the acceptance hold. */
static struct story good(void)
{
	const struct told adapted = { .99, .80, .93, 5, 1 };

	return (struct story){
		.set = "neu",
		.is_full = true,
		.n_seeds = 3,
		.frozen = { .93, .57, .83, 5, -1 },
		.native = { .95, .73, .89, 20, -1 },
		.adapted = { adapted, adapted, adapted },
	};
}

static uint32_t add(struct adapt_rows *rows, const struct story *story, enum adapt_arm arm,
	uint64_t seed, const struct told *told)
{
	struct adapt_detail detail = { .n = N_HELD };
	struct adapt_row row = {
		.resize = "squash",
		.base = "b",
		.images = "i",
		.recipe = "r",
		.px = arm == ADAPT_NATIVE || story->at_native ? 224 : 112,
		.seed = seed,
		.n_held = N_HELD,
		.n_classes = 6,
		.knn = told->knn,
		.shot1 = told->shot1,
		.shot5 = told->shot5,
		.ms = told->ms,
		.density = .998,
		.entropy = -1,
		.neighbours = -1,
		.passed = told->passed,
	};

	(void)snprintf(row.set, sizeof(row.set), "%s", story->set);
	(void)snprintf(row.arm, sizeof(row.arm), "%s", adapt_arm_names[arm]);
	(void)snprintf(row.reasons, sizeof(row.reasons), "%s", told->passed ? "" : "a \"reason\"");
	detail.figures.n_episodes = N_EPISODES;
	detail.figures.knn_right = calloc(N_HELD, 1);
	detail.linear_right = calloc(N_HELD, 1);
	detail.figures.shot1 = calloc(N_EPISODES, sizeof(double));
	detail.figures.shot5 = calloc(N_EPISODES, sizeof(double));
	assert_true(detail.figures.knn_right && detail.linear_right && detail.figures.shot1 &&
		    detail.figures.shot5);
	for (uint32_t i = 0; i < N_HELD; i++)
		detail.figures.knn_right[i] = i < told->knn * N_HELD - .5;
	for (uint32_t e = 0; e < N_EPISODES; e++) {
		detail.figures.shot1[e] = told->shot1;
		detail.figures.shot5[e] = told->shot5;
	}
	assert_int_equal(adapt_rows_add(rows, &row, &detail), 0);
	adapt_detail_done(&detail);
	return rows->n - 1;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

/* What the table says of a story: adapt's exit status. */
static int says(const struct story *story)
{
	struct adapt_bout bout = { .is_full = story->is_full, .at_native = story->at_native };
	char folder[] = "/tmp/kamen-table-XXXXXX", path[64];
	struct adapt_rows rows;
	int said;

	assert_non_null(mkdtemp(folder));
	(void)snprintf(path, sizeof(path), "%s/deeper/adapt.csv", folder);
	assert_int_equal(adapt_rows_open(&rows, path), 0);
	bout.rows[ADAPT_FROZEN][0] = add(&rows, story, ADAPT_FROZEN, 0, &story->frozen);
	bout.rows[ADAPT_NATIVE][0] = add(&rows, story, ADAPT_NATIVE, 0, &story->native);
	bout.n_seeds[ADAPT_FROZEN] = bout.n_seeds[ADAPT_NATIVE] = 1;
	for (uint32_t s = 0; s < story->n_seeds; s++)
		bout.rows[ADAPT_ADAPTED][bout.n_seeds[ADAPT_ADAPTED]++] =
			add(&rows, story, ADAPT_ADAPTED, s + 1, &story->adapted[s]);
	/* Of what is read back, as every run but the first has it. */
	adapt_rows_done(&rows);
	assert_int_equal(adapt_rows_open(&rows, path), 0);
	assert_int_equal(rows.n, 2 + story->n_seeds);
	said = adapt_table_print(&rows, &bout);
	adapt_rows_done(&rows);
	assert_int_equal(nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
	return said;
}

static void all_that_is_wanted_is_accepted(void **state)
{
	struct story story = good();

	(void)state;
	assert_int_equal(says(&story), 0);
	story.at_native = true;
	for (int s = 0; s < 3; s++)
		story.adapted[s] = (struct told){ .97, .80, .92, 20, 1 };
	story.frozen = story.native;
	assert_int_equal(says(&story), 0);
}

static void every_wanted_gain_is_asked(void **state)
{
	/* In all seeds: over frozen at size, then over frozen native, then the time. */
	const struct told cases[] = {
		{ .96, .80, .93, 5, 1 },
		{ .99, .74, .93, 5, 1 },
		{ .99, .80, .895, 5, 1 },
		{ .99, .80, .93, 11, 1 },
	};
	const struct told at_native[] = {
		{ .95, .80, .92, 20, 1 },
		{ .97, .78, .92, 20, 1 },
		{ .97, .80, .905, 20, 1 },
	};
	struct story story;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		story = good();
		for (int s = 0; s < 3; s++)
			story.adapted[s] = cases[i];
		assert_int_equal(says(&story), 1);
	}
	story = good();
	story.native.shot1 = .80; /* as good is not better */
	assert_int_equal(says(&story), 1);
	for (size_t i = 0; i < ARRAY_SIZE(at_native); i++) {
		story = good();
		story.at_native = true;
		story.frozen = story.native;
		for (int s = 0; s < 3; s++)
			story.adapted[s] = at_native[i];
		assert_int_equal(says(&story), 1);
	}
}

static void two_seeds_are_not_three(void **state)
{
	struct story story = good();

	(void)state;
	story.n_seeds = 2;
	assert_int_equal(says(&story), 1);
	story.is_full = false;
	assert_int_equal(says(&story), 0);
}

static void what_is_served_must_not_harm(void **state)
{
	struct story story = good();

	(void)state;
	story.set = "other";
	story.adapted[1].knn = .85;
	assert_int_equal(says(&story), 1);
	story.adapted[1].passed = 0;
	assert_int_equal(says(&story), 0);
}

static void no_gain_elsewhere_is_no_failure(void **state)
{
	struct story story = good();

	(void)state;
	story.set = "other";
	for (int s = 0; s < 3; s++)
		story.adapted[s] = story.frozen;
	for (int s = 0; s < 3; s++)
		story.adapted[s].passed = s == 0;
	assert_int_equal(says(&story), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_that_is_wanted_is_accepted),
		cmocka_unit_test(every_wanted_gain_is_asked),
		cmocka_unit_test(two_seeds_are_not_three),
		cmocka_unit_test(what_is_served_must_not_harm),
		cmocka_unit_test(no_gain_elsewhere_is_no_failure),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
