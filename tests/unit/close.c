/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fixture/close.h"

static void what_is_no_number_is_close_to_nothing(void **state)
{
	const double nan = (double)NAN, inf = (double)INFINITY;

	(void)state;
	assert_false(is_close(nan, 0, 1) || is_close(0, nan, 1) || is_close(nan, nan, inf));
	assert_false(is_close(0, 0.5, nan));
	assert_false(is_close(inf, 0, 1e30) || is_close(inf, -inf, 1e30));
	assert_true(is_close(inf, inf, 0));
}

static void a_tolerance_is_as_wide_as_it_says(void **state)
{
	(void)state;
	assert_true(is_close(1, 1, 0) && is_close(1, 1.5, .5) && is_close(1.5, 1, .5));
	/* As floats these two are one. */
	assert_false(is_close(1, 1 + 1e-9, 1e-10));
	assert_false(is_close(1, 1.5, .49));
	assert_close(-0., 0, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_no_number_is_close_to_nothing),
		cmocka_unit_test(a_tolerance_is_as_wide_as_it_says),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
