/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "ops/log.h"

/* A clock that a test moves: linked with --wrap=clock_gettime. */
static uint64_t fake_s = 1000;
int __wrap_clock_gettime(int clock, struct timespec *ret);
int __wrap_clock_gettime(int clock, struct timespec *ret)
{
	(void)clock;
	*ret = (struct timespec){ .tv_sec = (time_t)fake_s };
	return 0;
}

/* Runs f with stderr in a pipe and gives back what it wrote. */
static void capture(void (*f)(void), char *text, size_t n_bytes)
{
	int pipes[2], saved = dup(STDERR_FILENO);
	ssize_t n;

	assert_true(saved >= 0);
	assert_int_equal(pipe2(pipes, O_CLOEXEC | O_NONBLOCK), 0);
	assert_true(dup2(pipes[1], STDERR_FILENO) >= 0);
	f();
	assert_true(dup2(saved, STDERR_FILENO) >= 0);
	n = read(pipes[0], text, n_bytes - 1);
	text[n > 0 ? n : 0] = '\0';
	(void)close(pipes[0]);
	(void)close(pipes[1]);
	(void)close(saved);
}

static unsigned count_lines(const char *text)
{
	unsigned n = 0;

	for (; *text; text++)
		n += *text == '\n';
	return n;
}

static void one_of_each(void)
{
	log_error("disk %s is full", "a");
	log_write(LOG_INFO, "KAMEN_SITE=a", "hello");
	log_warning("two\nlines \x1b[31m");
	log_debug("not written by default");
}

static void lines_carry_their_level_and_stay_one_line(void **state)
{
	char text[4096];

	(void)state;
	assert_int_equal(unsetenv("JOURNAL_STREAM"), 0);
	capture(one_of_each, text, sizeof(text));
	assert_string_equal(text, "<3>disk a is full\n<6>hello\n<4>two lines  [31m\n");
}

static void without_a_journal_behind_it_the_stream_variable_is_not_believed(void **state)
{
	char text[4096];

	(void)state;
	assert_int_equal(setenv("JOURNAL_STREAM", "9:1", 1), 0);
	capture(one_of_each, text, sizeof(text));
	assert_int_equal(unsetenv("JOURNAL_STREAM"), 0);
	assert_int_equal(count_lines(text), 3);
}

static void repeat(void)
{
	for (unsigned i = 0; i < 50; i++)
		log_info("image %u is bad", i);
	log_info("another call site");
}

static void repeats_of_one_call_site_are_limited_and_counted(void **state)
{
	char text[8192];

	(void)state;
	capture(repeat, text, sizeof(text));
	assert_int_equal(count_lines(text), 20 + 1);
	assert_non_null(strstr(text, "image 19 is bad\n<6>another call site\n"));
	fake_s += 29;
	capture(repeat, text, sizeof(text));
	assert_int_equal(count_lines(text), 1);
	fake_s += 1;
	capture(repeat, text, sizeof(text));
	assert_int_equal(count_lines(text), 20 + 1);
	assert_non_null(strstr(text, "<6>image 0 is bad (80 more like this were not logged)\n"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lines_carry_their_level_and_stay_one_line),
		cmocka_unit_test(without_a_journal_behind_it_the_stream_variable_is_not_believed),
		cmocka_unit_test(repeats_of_one_call_site_are_limited_and_counted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
