/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <cmocka.h>

#include "samples.h"
#include "schedule.h"
#include "windows.h"

/* What kamen-bench tells of its measurements. */

static void a_percentile_is_the_nearest_rank(void **state)
{
	struct samples samples = { 0 };

	(void)state;
	assert_true(isnan(samples_percentile(&samples, .5)));
	for (int i = 1000; i > 0; i--)
		assert_int_equal(samples_add(&samples, i), 0);
	assert_true(samples_percentile(&samples, 0) == 1);
	assert_true(samples_percentile(&samples, .5) == 500);
	assert_true(samples_percentile(&samples, .9) == 900);
	assert_true(samples_percentile(&samples, .99) == 990);
	assert_true(samples_percentile(&samples, .999) == 999);
	assert_true(samples_percentile(&samples, 1) == 1000);
	samples_done(&samples);
	assert_int_equal(samples_add(&samples, 7), 0);
	assert_true(samples_percentile(&samples, .999) == 7);
	samples_done(&samples);
}

static void window(struct windows *windows, double value)
{
	struct samples *samples = windows_begin(windows);

	assert_int_equal(samples->n, 0);
	for (int i = 0; i < 5; i++)
		assert_int_equal(samples_add(samples, value + i - 2), 0);
	windows_end(windows);
}

static void three_windows_in_a_row_have_to_agree(void **state)
{
	static const double medians[] = { 100, 120, 104, 100, 111, 105, 110 };
	static const int agree[] = { 0, 0, 0, 0, 0, 0, 1 };
	struct windows windows = { .tolerance = .1 };

	(void)state;
	for (unsigned i = 0; i < sizeof(agree) / sizeof(agree[0]); i++) {
		window(&windows, medians[i]);
		assert_int_equal(windows_agree(&windows), agree[i]);
	}
	windows_done(&windows);
}

static void only_the_last_three_are_told_of(void **state)
{
	struct windows windows = { .tolerance = .1 };
	struct samples all = { 0 };

	(void)state;
	for (int i = 1; i <= 5; i++)
		window(&windows, 100 * i);
	assert_int_equal(windows_merge(&windows, &all), 0);
	assert_int_equal(all.n, 15);
	assert_true(samples_percentile(&all, 0) == 298);
	assert_true(samples_percentile(&all, 1) == 502);
	samples_done(&all);
	windows_done(&windows);
}

static void an_empty_window_agrees_with_none(void **state)
{
	struct windows windows = { .tolerance = 1e6 };

	(void)state;
	for (int i = 0; i < 4; i++) {
		(void)windows_begin(&windows);
		windows_end(&windows);
	}
	assert_false(windows_agree(&windows));
	windows_done(&windows);
}

static void clients_share_a_rate_evenly_and_for_ever(void **state)
{
	struct schedule one = { .begin_ns = 1000, .rate = 3, .n_clients = 1 };
	uint64_t last = 0;

	(void)state;
	for (uint64_t i = 0; i < 3000; i++) {
		struct schedule of_four = { 1000, 3, (uint32_t)(i % 4), 4 };
		uint64_t due = schedule_due(&one, i);

		/* Between them four clients make the moments of the one. */
		assert_true(schedule_due(&of_four, i / 4) == due);
		assert_true(i == 0 || due > last);
		last = due;
	}
	/* No step is added to another: nothing drifts. */
	assert_true(schedule_due(&one, 3000000) == 1000 + UINT64_C(1000000000000000));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_percentile_is_the_nearest_rank),
		cmocka_unit_test(three_windows_in_a_row_have_to_agree),
		cmocka_unit_test(only_the_last_three_are_told_of),
		cmocka_unit_test(an_empty_window_agrees_with_none),
		cmocka_unit_test(clients_share_a_rate_evenly_and_for_ever),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
