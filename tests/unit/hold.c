/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine.h"
#include "serve/hold.h"

#define SECOND_NS (1000 * NS_PER_MS)

/* A child that sleeps until it is killed. */
static pid_t child_new(void)
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	for (; pid == 0;)
		(void)pause();
	return pid;
}

static void child_end(pid_t pid)
{
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static char state_of(pid_t pid)
{
	char path[64], state = 0;
	_cleanup_(fclosep) FILE *file = NULL;

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	file = fopen(path, "re");
	assert_non_null(file);
	assert_int_equal(fscanf(file, "%*d (%*[^)]) %c", &state), 1);
	return state;
}

/* Signals arrive when the child gets a CPU. */
static void becomes(pid_t pid, bool is_stopped)
{
	const struct timespec moment = { .tv_nsec = (long)NS_PER_MS };

	for (int i = 0; i < 10000 && (state_of(pid) == 'T') != is_stopped; i++)
		(void)nanosleep(&moment, NULL);
	assert_int_equal(state_of(pid) == 'T', is_stopped);
}

static void it_stands_while_a_batch_computes(void **state)
{
	pid_t pid = child_new();
	struct hold hold;

	(void)state;
	hold_init(&hold);
	/* Nobody is there yet. */
	hold_begin(&hold);
	hold_end(&hold);
	hold_watch(&hold, pid);
	for (int i = 0; i < 2; i++) {
		hold_begin(&hold);
		becomes(pid, true);
		hold_end(&hold);
		becomes(pid, false);
	}
	assert_true(hold.total_ns > 0);
	hold_let_go(&hold);
	hold_done(&hold);
	child_end(pid);
	hold_begin(NULL);
	hold_end(NULL);
}

static void who_is_to_end_goes_on_and_is_not_held_again(void **state)
{
	pid_t pid = child_new();
	struct hold hold;

	(void)state;
	hold_init(&hold);
	hold_watch(&hold, pid);
	hold_begin(&hold);
	becomes(pid, true);
	hold_let_go(&hold);
	becomes(pid, false);
	hold_end(&hold);
	hold_begin(&hold);
	assert_false(hold.is_held);
	hold_end(&hold);
	child_end(pid);
	hold_done(&hold);
}

static void who_was_stopped_by_another_stays_so(void **state)
{
	pid_t pid = child_new();
	struct hold hold;

	(void)state;
	hold_init(&hold);
	hold_watch(&hold, pid);
	hold_begin(&hold);
	becomes(pid, true);
	hold_end(&hold);
	becomes(pid, false);
	assert_int_equal(kill(pid, SIGSTOP), 0);
	becomes(pid, true);
	hold_begin(&hold);
	assert_false(hold.is_held);
	hold_end(&hold);
	hold_let_go(&hold);
	assert_int_equal(state_of(pid), 'T');
	child_end(pid);
	hold_done(&hold);
}

static void batch_upon_batch_one_a_second_is_let_be(void **state)
{
	pid_t pid = child_new();
	struct hold hold;

	(void)state;
	hold_init(&hold);
	hold_watch(&hold, pid);
	hold.starved_ns = clock_now_ns() - 2 * SECOND_NS;
	hold_begin(&hold);
	assert_false(hold.is_held);
	hold_end(&hold);
	hold_begin(&hold);
	assert_true(hold.is_held);
	hold_end(&hold);
	/* After a gap it has had its share. */
	hold.starved_ns = clock_now_ns() - 2 * SECOND_NS;
	hold.changed_ns = clock_now_ns() - SECOND_NS;
	hold_begin(&hold);
	assert_true(hold.is_held);
	hold_let_go(&hold);
	child_end(pid);
	hold_done(&hold);
}

static struct config config_of(const char *cpu, uint32_t n_workers)
{
	struct config config = { .n_workers = n_workers };

	(void)snprintf(config.learner_cpu, sizeof(config.learner_cpu), "%s", cpu);
	return config;
}

static void only_who_is_after_the_same_cpus_is_held(void **state)
{
	struct config config = config_of("idle", 1);
	cpu_set_t all;
	int first = 0;

	(void)state;
	assert_true(hold_is_due(&config));
	config = config_of("idle", 2);
	assert_false(hold_is_due(&config));
	config = config_of("50", 1);
	assert_false(hold_is_due(&config));
	assert_int_equal(sched_getaffinity(0, sizeof(all), &all), 0);
	while (!CPU_ISSET(first, &all))
		first++;
	config = config_of("idle", 1);
	(void)snprintf(config.learner_cpus, sizeof(config.learner_cpus), "%d", first);
	assert_true(hold_is_due(&config));
	if (CPU_COUNT(&all) < 2)
		skip();
	config.threads = 1;
	assert_false(hold_is_due(&config));
	config = config_of("idle", 1);
	(void)snprintf(config.serve_cpus, sizeof(config.serve_cpus), "%d", first);
	assert_false(hold_is_due(&config));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_stands_while_a_batch_computes),
		cmocka_unit_test(who_is_to_end_goes_on_and_is_not_held_again),
		cmocka_unit_test(who_was_stopped_by_another_stays_so),
		cmocka_unit_test(batch_upon_batch_one_a_second_is_let_be),
		cmocka_unit_test(only_who_is_after_the_same_cpus_is_held),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
