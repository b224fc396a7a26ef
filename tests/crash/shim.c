/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stands between a program (with its libraries, SQLite among them) and libc: linked into a test or
 * preloaded. See disk.h. The one place of the tests that has state of its own.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "crash/disk.h"

static struct {
	struct disk_control *control;
	char root[256], shadow[256];
	bool skips_fsync;
} shim;

int disk_shim_arm(const char *root, const char *shadow)
{
	if (strlen(root) >= sizeof(shim.root) || strlen(shadow) >= sizeof(shim.shadow))
		return -ENAMETOOLONG;
	(void)snprintf(shim.root, sizeof(shim.root), "%s", root);
	(void)snprintf(shim.shadow, sizeof(shim.shadow), "%s", shadow);
	return disk_map(&shim.control, shadow);
}

void disk_shim_skip_fsync(void)
{
	shim.skips_fsync = true;
}

__attribute__((constructor)) static void arm_by_environment(void)
{
	const char *root = getenv("KAMEN_CRASH_ROOT"), *shadow = getenv("KAMEN_CRASH_SHADOW");

	if (root && shadow && disk_shim_arm(root, shadow) < 0)
		abort();
}

/* ---- whose call is it */

static bool is_inside(const char *path)
{
	size_t n = strlen(shim.root);

	return strncmp(path, shim.root, n) == 0 && (path[n] == 0 || path[n] == '/');
}

static bool path_of(int fd, char ret_path[PATH_MAX])
{
	char link[64];
	ssize_t n;

	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(fd == AT_FDCWD ? "/proc/self/cwd" : link, ret_path, PATH_MAX - 1);
	if (n < 0)
		return false;
	ret_path[n] = 0;
	return true;
}

static bool is_ours(int dir_fd, const char *path)
{
	char folder[PATH_MAX];
	int saved = errno;
	bool is;

	if (!shim.control)
		return false;
	is = path[0] == '/' ? is_inside(path) : path_of(dir_fd, folder) && is_inside(folder);
	errno = saved;
	return is;
}

static bool fd_is_ours(int fd)
{
	return is_ours(fd, "");
}

/* ---- points */

static void release(void)
{
	atomic_store(&shim.control->lock, 0);
}

/* Between here and release() the shadow is ours. Does not come back from the cut. */
static void enter(void)
{
	struct disk_control *control = shim.control;
	uint32_t expected = 0;

	while (!atomic_compare_exchange_weak(&control->lock, &expected, 1)) {
		expected = 0;
		(void)sched_yield();
	}
	if (atomic_fetch_add(&control->n_points, 1) + 1 != atomic_load(&control->stop_at))
		return;
	atomic_store(&control->is_dead, 1);
	(void)kill(0, SIGKILL);
	for (;;)
		(void)pause();
}

static int result(long value)
{
	return (int)value; /* syscall() has set errno */
}

static int sync_call(int fd, long number)
{
	int r;

	if (!fd_is_ours(fd))
		return shim.skips_fsync ? 0 : result(syscall(number, fd));
	enter();
	r = disk_record(shim.shadow, fd);
	release();
	if (r < 0)
		errno = -r;
	return r < 0 ? -1 : 0;
}

/* A second name in the grave, so that the inode and its bytes stay. */
static void bury(int dir_fd, const char *path)
{
	char to[PATH_MAX];
	int saved = errno;
	struct stat st;

	if (fstatat(dir_fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISDIR(st.st_mode)) {
		(void)snprintf(
			to, sizeof(to), "%s/grave/%lu", shim.shadow, (unsigned long)st.st_ino);
		(void)linkat(dir_fd, path, AT_FDCWD, to, 0);
	}
	errno = saved;
}

static int move(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
	bool is_counted = is_ours(from_fd, from) || is_ours(to_fd, to);
	int r;

	if (is_counted) {
		enter();
		if (!(flags & RENAME_NOREPLACE))
			bury(to_fd, to);
	}
	r = result(syscall(SYS_renameat2, from_fd, from, to_fd, to, flags));
	if (is_counted)
		release();
	return r;
}

static bool is_empty(int dir_fd, const char *path)
{
	int fd = openat(dir_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), n = 0;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);

	while (dir && readdir(dir))
		n++;
	if (dir)
		(void)closedir(dir);
	return n == 2;
}

/* A folder goes to the grave whole: it cannot have a second name. */
static int remove_folder(int dir_fd, const char *path)
{
	char to[PATH_MAX];
	struct stat st;

	if (fstatat(dir_fd, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -1;
	if (!is_empty(dir_fd, path)) {
		errno = ENOTEMPTY;
		return -1;
	}
	(void)snprintf(to, sizeof(to), "%s/grave/%lu", shim.shadow, (unsigned long)st.st_ino);
	return result(syscall(SYS_renameat2, dir_fd, path, AT_FDCWD, to, 0));
}

static int remove_name(int dir_fd, const char *path, int flags)
{
	int r;

	if (!is_ours(dir_fd, path))
		return result(syscall(SYS_unlinkat, dir_fd, path, flags));
	enter();
	if (flags & AT_REMOVEDIR) {
		r = remove_folder(dir_fd, path);
	} else {
		bury(dir_fd, path);
		r = result(syscall(SYS_unlinkat, dir_fd, path, flags));
	}
	release();
	return r;
}

/* ---- libc's names */

int fsync(int fd)
{
	return sync_call(fd, SYS_fsync);
}

int fdatasync(int fd)
{
	return sync_call(fd, SYS_fdatasync);
}

int rename(const char *from, const char *to)
{
	return move(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
	return move(from_fd, from, to_fd, to, 0);
}

int renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
	return move(from_fd, from, to_fd, to, flags);
}

int unlink(const char *path)
{
	return remove_name(AT_FDCWD, path, 0);
}

int unlinkat(int dir_fd, const char *path, int flags)
{
	return remove_name(dir_fd, path, flags);
}

int rmdir(const char *path)
{
	return remove_name(AT_FDCWD, path, AT_REMOVEDIR);
}
