/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A site's whole life is cut off before every fsync, rename and unlink in turn, and what the disk had
 * not promised is lost.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "crash/disk.h"
#include "crash/life.h"

struct bench {
	char dir[64], root[80], shadow[80], left[80];
	struct ledger *ledger;
	struct site_settings defaults;
	uint64_t n_points, n_cuts, stride;
};

static int bench_setup(void **state)
{
	struct bench *bench = calloc(1, sizeof(*bench));
	struct config config;

	if (!bench)
		return -1;
	(void)snprintf(bench->dir, sizeof(bench->dir), "%s", "/tmp/kamen-crash-XXXXXX");
	if (!mkdtemp(bench->dir))
		return -1;
	(void)snprintf(bench->root, sizeof(bench->root), "%s/root", bench->dir);
	(void)snprintf(bench->shadow, sizeof(bench->shadow), "%s/shadow", bench->dir);
	(void)snprintf(bench->left, sizeof(bench->left), "%s/left", bench->dir);
	bench->ledger = mmap(NULL, sizeof(*bench->ledger), PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (bench->ledger == MAP_FAILED)
		return -1;
	config_default(&config);
	bench->defaults = config.site_defaults;
	bench->stride = strtoull(getenv("KAMEN_CRASH_STRIDE") ?: "7", NULL, 10);
	*state = bench;
	return 0;
}

__attribute__((format(printf, 1, 2))) static void shell(const char *format, ...)
{
	char command[256];
	va_list list;

	va_start(list, format);
	(void)vsnprintf(command, sizeof(command), format, list);
	va_end(list);
	assert_int_equal(system(command), 0);
}

static int bench_teardown(void **state)
{
	struct bench *bench = *state;

	(void)disk_remove(bench->dir);
	(void)munmap(bench->ledger, sizeof(*bench->ledger));
	free(bench);
	return 0;
}

static struct fixture open_at(const struct bench *bench, const char *dir)
{
	struct fixture fixture = { .defaults = bench->defaults };
	struct diag diag = { "" };

	(void)snprintf(fixture.dir, sizeof(fixture.dir), "%s", dir);
	if (state_open(&fixture.state, dir, &fixture.defaults, &diag) < 0)
		fail_msg("%s", diag.text);
	return fixture;
}

/* In a process of its own and a group of its own, which the shim kills. */
static pid_t fork_under_shim(const struct bench *bench, const char *root)
{
	pid_t pid = fork();

	if (pid == 0 && (setpgid(0, 0) < 0 || disk_shim_arm(root, bench->shadow) < 0))
		_exit(9);
	return pid;
}

/* @return true: it came to its end before it could be stopped */
static bool outlived(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status))
		assert_int_equal(WEXITSTATUS(status), 0);
	else
		assert_int_equal(WTERMSIG(status), SIGKILL);
	return WIFEXITED(status);
}

static bool live(struct bench *bench, uint64_t stop_at)
{
	pid_t pid;

	assert_int_equal(disk_remove(bench->root), 0);
	assert_int_equal(mkdir(bench->root, 0750), 0);
	memset(bench->ledger, 0, sizeof(*bench->ledger));
	assert_int_equal(disk_settle(bench->root, bench->shadow, stop_at), 0);
	pid = fork_under_shim(bench, bench->root);
	if (pid == 0) {
		struct fixture fixture = open_at(bench, bench->root);

		fixture_open_disk(&fixture);
		life_lead(&fixture, bench->ledger);
		state_disk_free(fixture.disk);
		state_free(fixture.state);
		_exit(0);
	}
	return outlived(pid);
}

static void check(struct bench *bench, const char *dir)
{
	struct fixture fixture = open_at(bench, dir);

	life_check(&fixture, bench->ledger);
	state_free(fixture.state);
	bench->n_cuts++;
}

/* The restart is cut off too, somewhere; then the next one is not. */
static void check_restart(struct bench *bench, uint64_t stop_at)
{
	char again[80];
	pid_t pid;

	(void)snprintf(again, sizeof(again), "%s/again", bench->dir);
	assert_int_equal(disk_settle(bench->left, bench->shadow, stop_at), 0);
	pid = fork_under_shim(bench, bench->left);
	if (pid == 0) {
		struct fixture fixture = open_at(bench, bench->left);

		state_free(fixture.state);
		_exit(0);
	}
	(void)outlived(pid);
	assert_int_equal(disk_rebuild(bench->left, bench->shadow, again, DISK_DROP, 0), 0);
	check(bench, again);
	assert_int_equal(disk_remove(again), 0);
}

static void cut_at(struct bench *bench, uint64_t point)
{
	for (enum disk_loss loss = 0; loss < DISK_N; loss++) {
		print_message("point %llu, %s\n", (unsigned long long)point, disk_loss_names[loss]);
		assert_int_equal(disk_remove(bench->left), 0);
		assert_int_equal(
			disk_rebuild(bench->root, bench->shadow, bench->left, loss, point), 0);
		check(bench, bench->left);
	}
	assert_int_equal(disk_remove(bench->left), 0);
	assert_int_equal(disk_rebuild(bench->root, bench->shadow, bench->left, DISK_MIX, point), 0);
	check_restart(bench, 1 + point % 11);
}

static void nothing_told_is_lost_wherever_the_power_fails(void **state)
{
	struct bench *bench = *state;

	assert_true(live(bench, 0));
	assert_true(bench->ledger->is_over);
	bench->n_points = disk_points(bench->shadow);
	assert_true(bench->n_points > 100);
	for (uint64_t point = 1 + bench->n_points % bench->stride; point <= bench->n_points;
		point += bench->stride) {
		assert_false(live(bench, point));
		cut_at(bench, point);
	}
	print_message("cut off at one point in %llu of %llu: %llu cuts\n",
		(unsigned long long)bench->stride, (unsigned long long)bench->n_points,
		(unsigned long long)bench->n_cuts);
}

/* The proof would prove nothing if the disk never forgot. */
static void the_disk_forgets_what_was_not_synced(void **state)
{
	struct bench *bench = *state;
	char path[128];
	pid_t pid;

	assert_int_equal(disk_remove(bench->root), 0);
	assert_int_equal(mkdir(bench->root, 0750), 0);
	shell("echo old >%s/kept", bench->root);
	assert_int_equal(disk_settle(bench->root, bench->shadow, 0), 0);
	pid = fork_under_shim(bench, bench->root);
	if (pid == 0) {
		shell("echo new >%s/kept", bench->root);
		shell("echo new >%s/unsynced", bench->root);
		(void)snprintf(path, sizeof(path), "%s/whole", bench->root);
		_exit(blob_write(AT_FDCWD, path, "new\n", 4) < 0);
	}
	assert_true(outlived(pid));
	assert_int_equal(disk_points(bench->shadow), 3);
	assert_int_equal(disk_rebuild(bench->root, bench->shadow, bench->left, DISK_DROP, 0), 0);
	shell("test $(cat %s/kept) = old", bench->left);
	shell("test $(cat %s/whole) = new", bench->left);
	/* Its name was kept by the fsync of the folder, and nothing else of it. */
	shell("test -e %s/unsynced", bench->left);
	shell("test ! -s %s/unsynced", bench->left);
}

#define with_bench(test) cmocka_unit_test_setup_teardown(test, bench_setup, bench_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_bench(the_disk_forgets_what_was_not_synced),
		with_bench(nothing_told_is_lost_wherever_the_power_fails),
	};

	disk_shim_skip_fsync();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
