/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <cmocka.h>
#include <string.h>

#include "ops/cpus.h"

static void a_list_is_read(void **state)
{
	cpu_set_t cpus;

	(void)state;
	assert_true(cpus_parse("0-3,8", &cpus));
	assert_int_equal(CPU_COUNT(&cpus), 5);
	assert_true(CPU_ISSET(3, &cpus) && CPU_ISSET(8, &cpus) && !CPU_ISSET(4, &cpus));
	assert_true(cpus_parse("7", &cpus));
	assert_int_equal(CPU_COUNT(&cpus), 1);
	assert_true(cpus_parse("1023", &cpus));
}

static void what_is_not_a_list_is_refused(void **state)
{
	static const char *const wrong[] = { "", ",", "1,", ",1", "3-1", "1-", "-1", "a", "1 2",
		"1024", "0-1024", "99999999999999999999", "1,,2", "0x1" };
	cpu_set_t cpus;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++)
		if (cpus_parse(wrong[i], &cpus))
			fail_msg("'%s' was taken", wrong[i]);
}

static void every_cpu_is_in_one_share_and_none_is_empty(void **state)
{
	cpu_set_t cpus;

	(void)state;
	assert_true(cpus_parse("2-8,11,30", &cpus));
	for (unsigned n = 1; n <= 12; n++) {
		unsigned total = 0;
		cpu_set_t all;

		CPU_ZERO(&all);
		for (unsigned i = 0; i < n; i++) {
			cpu_set_t share = cpus_share(&cpus, i, n);

			assert_true(CPU_COUNT(&share) > 0);
			total += (unsigned)CPU_COUNT(&share);
			CPU_OR(&all, &all, &share);
		}
		assert_true(CPU_EQUAL(&all, &cpus));
		assert_true(n > 9 || total == 9);
	}
}

static void what_the_process_may_not_use_is_left_out(void **state)
{
	struct diag diag = { "" };
	cpu_set_t ours, cpus;
	char text[32];
	int own = 0;

	(void)state;
	assert_int_equal(cpus_allowed("", &ours, &diag), 0);
	assert_true(CPU_COUNT(&ours) > 0);
	while (!CPU_ISSET(own, &ours))
		own++;
	(void)snprintf(text, sizeof(text), "%d,1023", own);
	assert_int_equal(cpus_allowed(text, &cpus, &diag), 0);
	assert_int_equal(CPU_COUNT(&cpus), 1);
	assert_true(CPU_ISSET(own, &cpus));
	assert_int_equal(cpus_allowed("1023", &cpus, &diag), -ENODEV);
	assert_non_null(strstr(diag.text, "1023"));
	assert_int_equal(cpus_allowed("x", &cpus, &diag), -EINVAL);
	assert_int_equal(cpus_keep_to("", &diag), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_list_is_read),
		cmocka_unit_test(what_is_not_a_list_is_refused),
		cmocka_unit_test(every_cpu_is_in_one_share_and_none_is_empty),
		cmocka_unit_test(what_the_process_may_not_use_is_left_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
