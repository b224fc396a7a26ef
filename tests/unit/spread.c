/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/spread.h"

static cpu_set_t allowed_now(void)
{
	cpu_set_t allowed;

	assert_int_equal(sched_getaffinity(0, sizeof(allowed), &allowed), 0);
	return allowed;
}

/* The i-th that it may use. */
static int cpu_number(const cpu_set_t *cpus, int i)
{
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, cpus) && i-- == 0)
			return cpu;
	return -1;
}

static void keep_to(int cpu)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
}

static void who_is_alone_on_a_cpu_stays(void **state)
{
	const cpu_set_t allowed = allowed_now();
	const int here = cpu_number(&allowed, 0);
	struct spread *spread = spread_new(2);

	(void)state;
	assert_non_null(spread);
	keep_to(here);
	spread_pass(spread, 0);
	assert_int_equal(spread->cpus[0], here);
	/* It was there itself. */
	spread_pass(spread, 0);
	assert_int_equal(spread->cpus[0], here);
	assert_int_equal(spread->cpus[1], -1);
	/* Who was there before they began is forgotten. */
	spread_begin(spread);
	spread_pass(spread, 1);
	assert_int_equal(spread->cpus[1], here);
	assert_int_equal(sched_setaffinity(0, sizeof(allowed), &allowed), 0);
	free(spread);
}

static void who_shares_one_moves_and_may_be_moved_on(void **state)
{
	const cpu_set_t allowed = allowed_now();
	struct spread *spread;
	bool was_there = false;
	cpu_set_t after;

	(void)state;
	if (CPU_COUNT(&allowed) < 2)
		skip();
	spread = spread_new(3);
	assert_non_null(spread);
	/* Another was seen where this thread is, and a third, if one is left for this then, elsewhere. */
	atomic_store(&spread->cpus[1], cpu_number(&allowed, 1));
	if (CPU_COUNT(&allowed) > 2)
		atomic_store(&spread->cpus[0], cpu_number(&allowed, 0));
	/* Once let go it may be anywhere again: not each time, though. */
	for (int i = 0; i < 100 && !was_there; i++) {
		keep_to(cpu_number(&allowed, 1));
		assert_int_equal(sched_setaffinity(0, sizeof(allowed), &allowed), 0);
		spread_pass(spread, 2);
		was_there = sched_getcpu() == spread->cpus[2];
	}
	assert_true(was_there);
	assert_int_not_equal(spread->cpus[2], spread->cpus[1]);
	assert_int_not_equal(spread->cpus[2], spread->cpus[0]);
	assert_true(CPU_ISSET(spread->cpus[2], &allowed));
	after = allowed_now();
	assert_true(CPU_EQUAL(&after, &allowed));
	free(spread);
}

static void where_all_are_taken_it_stays(void **state)
{
	const cpu_set_t allowed = allowed_now();
	const int here = cpu_number(&allowed, 0);
	struct spread *spread = spread_new(2);
	cpu_set_t after;

	(void)state;
	assert_non_null(spread);
	keep_to(here);
	atomic_store(&spread->cpus[0], here);
	spread_pass(spread, 1);
	assert_int_equal(spread->cpus[1], here);
	after = allowed_now();
	assert_int_equal(CPU_COUNT(&after), 1);
	assert_int_equal(sched_setaffinity(0, sizeof(allowed), &allowed), 0);
	free(spread);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_is_alone_on_a_cpu_stays),
		cmocka_unit_test(who_shares_one_moves_and_may_be_moved_on),
		cmocka_unit_test(where_all_are_taken_it_stays),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
