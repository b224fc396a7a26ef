/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "engine.h"
#include "serve/turns.h"

#define US 1000000ull
#define DAY (86400 * US)

static struct site_settings settings(void)
{
	struct config config;

	config_default(&config);
	return config.site_defaults;
}

static void nothing_begins_by_itself_unless_told(void **state)
{
	struct site_settings set = settings();
	const struct site_need need = { .n_images = 1000000, .n_new = 1000000, .round_us = 1 };

	(void)state;
	assert_int_equal(turns_due(&set, &need, true, 1000 * DAY), DUE_NOT);
}

static void a_round_is_due_after_enough_new_images(void **state)
{
	struct site_settings set = settings();
	struct site_need need = { .n_images = 500, .n_new = 99, .round_us = DAY };

	(void)state;
	set.learn_after = 100;
	assert_int_equal(turns_due(&set, &need, false, 2 * DAY), DUE_NOT);
	need.n_new = 100;
	assert_int_equal(turns_due(&set, &need, false, 2 * DAY), DUE_IMAGES);
	need.n_images = set.learn_min_images - 1;
	assert_int_equal(turns_due(&set, &need, false, 2 * DAY), DUE_NOT);
	need.n_images = set.learn_min_images;
	need.hold = SITE_PAUSED;
	assert_int_equal(turns_due(&set, &need, false, 2 * DAY), DUE_NOT);
	need.hold = SITE_FROZEN;
	assert_int_equal(turns_due(&set, &need, false, 2 * DAY), DUE_NOT);
}

static void a_round_is_due_after_its_interval(void **state)
{
	struct site_settings set = settings();
	struct site_need need = { .n_images = 500, .n_new = 1, .round_us = 10 * DAY };

	(void)state;
	set.learn_every = 3600;
	assert_int_equal(turns_due(&set, &need, false, 10 * DAY + 3599 * US), DUE_NOT);
	assert_int_equal(turns_due(&set, &need, false, 10 * DAY + 3600 * US), DUE_SCHEDULE);
	/* A clock set back by years does not put it off for years. */
	assert_int_equal(turns_due(&set, &need, false, DAY), DUE_SCHEDULE);
	need.n_new = 0;
	assert_int_equal(turns_due(&set, &need, false, 20 * DAY), DUE_NOT);
}

/* However the look falls: at the end of the wait it is due, and before that it is not. */
static void the_clock_is_waited_for_exactly(void **state)
{
	struct site_settings set = settings();
	struct site_need need = { .n_images = 500, .n_new = 1, .round_us = 20000 * DAY };

	(void)state;
	assert_int_equal(setenv("TZ", "Europe/Berlin", 1), 0);
	tzset();
	assert_true(turns_wait_us(&set, &need, 20000 * DAY) == UINT64_MAX);
	for (unsigned i = 0; i < 3; i++) {
		set.learn_every = i == 1 ? 0 : 31 * 3600;
		(void)snprintf(set.learn_at, sizeof(set.learn_at), "%s", i == 0 ? "" : "02:30");
		for (uint64_t hour = 0; hour < 24 * 400; hour += 7) {
			uint64_t now = need.round_us + hour * 3600 * US + 1, wait;

			if (turns_due(&set, &need, false, now) != DUE_NOT) {
				need.round_us = now;
				continue;
			}
			wait = turns_wait_us(&set, &need, now);
			assert_in_range(wait, 1, 2 * DAY);
			assert_int_equal(turns_due(&set, &need, false, now + wait), DUE_SCHEDULE);
			assert_int_equal(turns_due(&set, &need, false, now + wait - US), DUE_NOT);
		}
	}
	/* What has to happen first is no matter of time. */
	need.n_new = 0;
	assert_true(turns_wait_us(&set, &need, need.round_us) == UINT64_MAX);
	need.n_new = 1;
	need.hold = SITE_PAUSED;
	assert_true(turns_wait_us(&set, &need, need.round_us) == UINT64_MAX);
	need.hold = SITE_ACTIVE;
	need.n_images = set.learn_min_images - 1;
	assert_true(turns_wait_us(&set, &need, need.round_us) == UINT64_MAX);
	assert_int_equal(setenv("TZ", "UTC", 1), 0);
	tzset();
}

static void a_round_is_due_once_a_day(void **state)
{
	struct site_settings set = settings();
	struct site_need need = { .n_images = 500, .n_new = 1 };
	const uint64_t midnight = 20000 * DAY, half_past_two = midnight + 9000 * US;
	unsigned n_rounds = 0;

	(void)state;
	assert_int_equal(setenv("TZ", "UTC", 1), 0);
	tzset();
	(void)snprintf(set.learn_at, sizeof(set.learn_at), "%s", "02:30");
	need.round_us = midnight;
	assert_int_equal(turns_due(&set, &need, false, half_past_two - US), DUE_NOT);
	assert_int_equal(turns_due(&set, &need, false, half_past_two), DUE_SCHEDULE);
	need.round_us = half_past_two + US;
	assert_int_equal(turns_due(&set, &need, false, midnight + DAY), DUE_NOT);
	/* Also over the days on which clocks are changed. */
	assert_int_equal(setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3", 1), 0);
	tzset();
	need.round_us = midnight + 12 * 3600 * US;
	for (uint64_t now = need.round_us; now < midnight + 365 * DAY; now += 600 * US)
		if (turns_due(&set, &need, false, now) == DUE_SCHEDULE) {
			need.round_us = now;
			n_rounds++;
		}
	assert_in_range(n_rounds, 364, 366);
}

static void drift_begins_a_round_only_where_it_may(void **state)
{
	struct site_settings set = settings();
	const struct site_need need = { .n_images = 500, .n_new = 1, .round_us = DAY };

	(void)state;
	assert_int_equal(turns_due(&set, &need, true, 2 * DAY), DUE_NOT);
	set.learn_on_drift = true;
	assert_int_equal(turns_due(&set, &need, false, 2 * DAY), DUE_NOT);
	assert_int_equal(turns_due(&set, &need, true, 2 * DAY), DUE_DRIFT);
}

static void greater_need_goes_first_and_nobody_is_nobody(void **state)
{
	struct turn turns[3] = {
		{ DUE_IMAGES, 5, 100, 1000 },
		{ DUE_IMAGES, 5, 900, 1000 },
		{ DUE_NOT, 0, 1000, 1000 },
	};

	(void)state;
	assert_int_equal(turns_choose(turns, 3), 1);
	turns[0].due = DUE_DRIFT;
	assert_int_equal(turns_choose(turns, 3), 0);
	turns[0].due = turns[1].due = DUE_NOT;
	assert_int_equal(turns_choose(turns, 3), 3);
	assert_int_equal(turns_choose(NULL, 0), 0);
}

/* A hundred sites, of which some are always hungry; the learner does one round a turn. */
static void no_site_of_a_hundred_starves(void **state)
{
	enum { N = 100, N_TURNS = 5000 };
	struct turn turns[N] = { { 0 } };
	unsigned n_rounds[N] = { 0 };
	uint64_t longest = 0;
	uint64_t seed = 20260101;

	(void)state;
	print_message("seed %llu\n", (unsigned long long)seed);
	for (uint64_t turn = 1; turn <= N_TURNS; turn++) {
		uint32_t at;

		for (uint32_t i = 0; i < N; i++) {
			/* Site 0 has everything new at once, the last a single image of a million. */
			seed = seed * 6364136223846793005u + 1442695040888963407u;
			turns[i].n_images = 1000000;
			turns[i].n_new += i < 10       ? 1000000
					  : i + 1 == N ? turns[i].n_new == 0
						       : seed >> 60;
			if (turns[i].due == DUE_NOT && turns[i].n_new > 0) {
				turns[i].due = i < 5 ? DUE_DRIFT : DUE_IMAGES;
				turns[i].since = turn;
			}
		}
		at = turns_choose(turns, N);
		assert_in_range(at, 0, N - 1);
		if (turn - turns[at].since > longest)
			longest = turn - turns[at].since;
		n_rounds[at]++;
		turns[at] = (struct turn){ .due = DUE_NOT };
	}
	assert_true((double)longest <= N + TURNS_HEAD_START);
	for (uint32_t i = 0; i < N; i++)
		assert_true(n_rounds[i] >= N_TURNS / (N + (unsigned)TURNS_HEAD_START) - 1);
	/* Need counts, a little: the hungry ones do not learn less than the others. */
	assert_true(n_rounds[0] >= n_rounds[N - 1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_begins_by_itself_unless_told),
		cmocka_unit_test(a_round_is_due_after_enough_new_images),
		cmocka_unit_test(a_round_is_due_after_its_interval),
		cmocka_unit_test(the_clock_is_waited_for_exactly),
		cmocka_unit_test(a_round_is_due_once_a_day),
		cmocka_unit_test(drift_begins_a_round_only_where_it_may),
		cmocka_unit_test(greater_need_goes_first_and_nobody_is_nobody),
		cmocka_unit_test(no_site_of_a_hundred_starves),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
