/* SPDX-License-Identifier: Apache-2.0 */

/* What is watched while a champion serves: drift of novelty, and its first answers. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "engine.h"
#include "site/drift.h"
#include "site/watch.h"

#define SEED 2026u

static float uniform(struct rng *rng)
{
	return rng_uniform(rng);
}

/* Novelties as a reference makes them: ranks of a fresh draw among n_held draws of the same law. */
static double percentile(struct rng *rng, const float *held, uint32_t n_held, float shift)
{
	float x = uniform(rng) + shift;
	uint32_t n = 0;

	for (uint32_t i = 0; i < n_held; i++)
		n += held[i] < x;
	return (double)n / (n_held + 1);
}

static uint64_t answers_until_alarm(uint64_t key, uint32_t n_held, float shift, uint64_t n_max)
{
	struct rng rng = rng_stream(SEED, 0, (uint32_t)key, 0);
	float held[512];
	struct drift drift;

	for (uint32_t i = 0; i < n_held; i++)
		held[i] = uniform(&rng);
	drift_reset(&drift, n_held);
	for (uint64_t i = 0; i < n_max; i++)
		if (drift_add(&drift, percentile(&rng, held, n_held, shift)))
			return i + 1;
	return 0;
}

static void what_stays_as_it_was_raises_no_alarm(void **state)
{
	static const uint32_t held[] = { 16, 40, 100, 500 };

	(void)state;
	print_message("seed %u\n", SEED);
	for (unsigned h = 0; h < 4; h++)
		for (unsigned i = 0; i < 25; i++)
			assert_int_equal(answers_until_alarm(100 * h + i, held[h], 0, 20000), 0);
}

static void drift_is_seen_soon_and_the_larger_the_sooner(void **state)
{
	uint64_t large, small;

	(void)state;
	for (unsigned i = 0; i < 20; i++) {
		large = answers_until_alarm(1000 + i, 100, .5f, 20000);
		small = answers_until_alarm(1000 + i, 100, .25f, 20000);
		assert_in_range(large, 1, 100);
		assert_in_range(small, large + 1, 1500);
	}
}

static void drift_says_what_it_saw(void **state)
{
	struct drift novel, tail, alike, few;
	bool rang = false;

	(void)state;
	drift_reset(&novel, 200);
	drift_reset(&tail, 200);
	drift_reset(&alike, 200);
	drift_reset(&few, 15);
	for (unsigned i = 0; i < 2000; i++) {
		bool now = drift_add(&novel, .85);

		assert_false(now && rang);
		rang = rang || now;
		(void)drift_add(&tail, i % 3 == 0 ? .97 : .3);
		(void)drift_add(&alike, .1);
		assert_false(drift_add(&few, .999));
		assert_false(drift_add(&novel, NAN));
	}
	assert_true(rang);
	assert_string_equal(drift_name(novel.alarm), "novel");
	assert_string_equal(drift_name(tail.alarm), "tail");
	assert_string_equal(drift_name(alike.alarm), "alike");
	assert_int_equal(few.alarm, DRIFT_NONE);
	assert_int_equal(novel.n, 2000);
	assert_in_range(novel.alarm_n, 20, 200);
	assert_true(fabs(novel.mean - .85) < 1e-6);
	drift_reset(&novel, 200);
	assert_int_equal(novel.alarm, DRIFT_NONE);
}

/* n answers of which every `every`th has the novelty. @return answers until the fall, 0: none */
static uint32_t fall_of(
	struct watch *watch, unsigned every, double novelty, uint32_t n, char *reason)
{
	for (uint32_t i = 0; i < n; i++)
		if (watch_add(watch, i % every == 0 ? novelty : .4, false, reason, 128))
			return i + 1;
	return 0;
}

static void a_champion_as_good_as_it_looked_stays(void **state)
{
	struct rng rng = rng_stream(SEED, 1, 0, 0);
	char reason[128] = "";

	(void)state;
	for (unsigned k = 0; k < 50; k++) {
		struct watch watch;
		struct watch_counts none = { 0 };

		watch_begin(&watch, 3, 1000, 40, .99, &none);
		for (unsigned i = 0; i < 1000; i++) {
			assert_true(watch_is_on(&watch));
			assert_false(
				watch_add(&watch, uniform(&rng), false, reason, sizeof(reason)));
		}
		assert_false(watch_is_on(&watch));
		assert_false(watch_add(&watch, 1, true, reason, sizeof(reason)));
	}
}

static void a_champion_that_calls_good_parts_bad_falls(void **state)
{
	struct watch_counts none = { 0 };
	char reason[128] = "";
	struct watch watch;

	(void)state;
	watch_begin(&watch, 3, 1000, 200, .99, &none);
	assert_in_range(fall_of(&watch, 1, 1, 1000, reason), 20, 30);
	assert_non_null(strstr(reason, "NG"));
	watch_begin(&watch, 3, 1000, 200, .99, &none);
	assert_in_range(fall_of(&watch, 3, 1, 1000, reason), 30, 200);
	/* Not one is NG, but all lie far out. */
	watch_begin(&watch, 3, 1000, 200, .99, &none);
	assert_in_range(fall_of(&watch, 1, .95, 1000, reason), 20, 60);
	assert_non_null(strstr(reason, "novelties"));
	/* One in twenty-five may be. */
	watch_begin(&watch, 3, 1000, 200, .99, &none);
	assert_int_equal(fall_of(&watch, 25, 1, 1000, reason), 0);
}

static void a_bad_line_is_not_the_champions_fault(void **state)
{
	struct watch_counts before = { 0 }, none = { 0 };
	char reason[128] = "";
	struct watch watch;

	(void)state;
	for (unsigned i = 0; i < 300; i++)
		watch_count(&before, i % 3 == 0 ? 1 : .4, .99, false);
	assert_int_equal(before.n_ng, 100);
	watch_begin(&watch, 3, 1000, 200, .99, &before);
	assert_int_equal(fall_of(&watch, 3, 1, 1000, reason), 0);
	watch_begin(&watch, 3, 1000, 200, .99, &none);
	assert_int_not_equal(fall_of(&watch, 3, 1, 1000, reason), 0);
}

static void failures_of_inference_end_it(void **state)
{
	struct watch_counts none = { 0 };
	char reason[128] = "";
	struct watch watch;

	(void)state;
	watch_begin(&watch, 3, 1000, 0, .99, &none);
	assert_false(watch_add(&watch, NAN, true, reason, sizeof(reason)));
	assert_false(watch_add(&watch, NAN, true, reason, sizeof(reason)));
	assert_true(watch_add(&watch, NAN, true, reason, sizeof(reason)));
	assert_non_null(strstr(reason, "failed 3 times"));
	/* Whoever could not roll back is told again. */
	assert_true(watch_add(&watch, .5, false, reason, sizeof(reason)));
	assert_int_equal(watch_left(&watch), 999);
	watch.now.n = 1001;
	assert_int_equal(watch_left(&watch), 0);
	watch_stop(&watch);
	assert_false(watch_add(&watch, NAN, true, reason, sizeof(reason)));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_stays_as_it_was_raises_no_alarm),
		cmocka_unit_test(drift_is_seen_soon_and_the_larger_the_sooner),
		cmocka_unit_test(drift_says_what_it_saw),
		cmocka_unit_test(a_champion_as_good_as_it_looked_stays),
		cmocka_unit_test(a_champion_that_calls_good_parts_bad_falls),
		cmocka_unit_test(a_bad_line_is_not_the_champions_fault),
		cmocka_unit_test(failures_of_inference_end_it),
	};

	return cmocka_run_group_tests_name("live", tests, NULL, NULL);
}
