/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <omp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine.h"
#include "serve/hold.h"

#define SECOND_NS (1000 * NS_PER_MS)

struct fixture {
	struct hold hold;
	pid_t child; /* sleeps until it is killed, and is watched */
};

static int set_up(void **state)
{
	static struct fixture f;

	f.child = fork();
	if (f.child < 0)
		return -1;
	while (f.child == 0)
		(void)pause();
	hold_init(&f.hold);
	hold_watch(&f.hold, f.child);
	*state = &f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	hold_let_go(&f->hold);
	hold_done(&f->hold);
	return kill(f->child, SIGKILL) < 0 || waitpid(f->child, NULL, 0) != f->child ? -1 : 0;
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
	struct fixture *f = *state;

	for (int i = 0; i < 2; i++) {
		hold_begin(&f->hold);
		becomes(f->child, true);
		hold_end(&f->hold);
		becomes(f->child, false);
	}
	assert_true(f->hold.total_ns > 0);
	hold_begin(NULL);
	hold_end(NULL);
}

static void who_is_to_end_goes_on_and_is_not_held_again(void **state)
{
	struct fixture *f = *state;

	hold_begin(&f->hold);
	becomes(f->child, true);
	hold_let_go(&f->hold);
	becomes(f->child, false);
	hold_end(&f->hold);
	hold_begin(&f->hold);
	assert_false(f->hold.is_held);
	hold_end(&f->hold);
}

static void who_was_stopped_by_another_stays_so(void **state)
{
	struct fixture *f = *state;

	hold_begin(&f->hold);
	becomes(f->child, true);
	hold_end(&f->hold);
	becomes(f->child, false);
	assert_int_equal(kill(f->child, SIGSTOP), 0);
	becomes(f->child, true);
	hold_begin(&f->hold);
	assert_false(f->hold.is_held);
	hold_end(&f->hold);
	hold_let_go(&f->hold);
	assert_int_equal(state_of(f->child), 'T');
}

static void batch_upon_batch_one_a_second_is_let_be(void **state)
{
	struct fixture *f = *state;
	bool was_held = true;

	/* Unless this test itself was away for longer than the gap. */
	for (int i = 0; i < 100 && was_held; i++) {
		f->hold.starved_ns = clock_now_ns() - 2 * SECOND_NS;
		f->hold.changed_ns = clock_now_ns();
		hold_begin(&f->hold);
		was_held = f->hold.is_held;
		hold_end(&f->hold);
	}
	assert_false(was_held);
	hold_begin(&f->hold);
	assert_true(f->hold.is_held);
	hold_end(&f->hold);
	/* After a gap it has had its share. */
	f->hold.starved_ns = clock_now_ns() - 2 * SECOND_NS;
	f->hold.changed_ns = clock_now_ns() - SECOND_NS;
	hold_begin(&f->hold);
	assert_true(f->hold.is_held);
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
	int first = 0, n_threads;

	(void)state;
	omp_set_num_threads(omp_get_num_procs());
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
	n_threads = omp_get_max_threads();
	omp_set_num_threads(1);
	config = config_of("idle", 1);
	assert_false(hold_is_due(&config));
	omp_set_num_threads(n_threads);
	config = config_of("idle", 1);
	(void)snprintf(config.serve_cpus, sizeof(config.serve_cpus), "%d", first);
	assert_false(hold_is_due(&config));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			it_stands_while_a_batch_computes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			who_is_to_end_goes_on_and_is_not_held_again, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			who_was_stopped_by_another_stays_so, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			batch_upon_batch_one_a_second_is_let_be, set_up, tear_down),
		cmocka_unit_test(only_who_is_after_the_same_cpus_is_held),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
