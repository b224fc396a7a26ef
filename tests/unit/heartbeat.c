/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "serve/heartbeat.h"

static void who_rests_moves(void **state)
{
	struct heartbeat heartbeat = { 0 };

	(void)state;
	for (int i = 0; i < 5; i++)
		assert_true(heartbeat_moves(&heartbeat, 0, 0));
	for (int i = 0; i < 5; i++)
		assert_true(heartbeat_moves(&heartbeat, 7, 7));
}

static void who_is_at_it_for_two_looks_is_stuck(void **state)
{
	struct heartbeat heartbeat = { 0 };

	(void)state;
	assert_true(heartbeat_moves(&heartbeat, 1, 0));
	assert_false(heartbeat_moves(&heartbeat, 1, 0));
	assert_false(heartbeat_moves(&heartbeat, 1, 0));
	/* It was only slow. */
	assert_true(heartbeat_moves(&heartbeat, 1, 1));
	assert_true(heartbeat_moves(&heartbeat, 2, 1));
	assert_true(heartbeat_moves(&heartbeat, 3, 2));
	assert_false(heartbeat_moves(&heartbeat, 3, 2));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_rests_moves),
		cmocka_unit_test(who_is_at_it_for_two_looks_is_stuck),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
