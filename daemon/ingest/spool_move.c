/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

#include "ingest/spool_move.h"

enum { MAX_NUMBER = 9999 };

static int open_beneath(int dir_fd, const char *name)
{
	struct open_how how = { .flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS };
	int fd;

	if (mkdirat(dir_fd, name, 0750) < 0 && errno != EEXIST)
		return -errno;
	fd = (int)syscall(SYS_openat2, dir_fd, name, &how, sizeof(how));
	return fd < 0 ? -errno : fd;
}

static int open_sides(struct spool_move *move)
{
	int done_fd = open_beneath(move->dir_fd, "done");
	int bad_fd = open_beneath(move->dir_fd, "bad");

	if (done_fd < 0 || bad_fd < 0) {
		int r = done_fd < 0 ? done_fd : bad_fd;

		closep(&done_fd);
		closep(&bad_fd);
		return r;
	}
	closep(&move->done_fd);
	closep(&move->bad_fd);
	move->done_fd = done_fd;
	move->bad_fd = bad_fd;
	return 0;
}

/* The folders above it too: below the state folder, a site's spool is the first to be there. */
static int make_path(const char *path)
{
	_cleanup_(freep) char *copy = strdup(path);

	if (!copy)
		return -ENOMEM;
	for (char *slash = strchr(copy + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		if (mkdir(copy, 0755) < 0 && errno != EEXIST)
			return -errno;
		*slash = '/';
	}
	return mkdir(copy, 0770) < 0 && errno != EEXIST ? -errno : 0;
}

int spool_move_open(struct spool_move *move, const char *path)
{
	int r = make_path(path);

	if (r < 0)
		return r;
	move->dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (move->dir_fd < 0)
		return -errno;
	r = open_sides(move);
	if (r < 0)
		spool_move_close(move);
	return r;
}

void spool_move_close(struct spool_move *move)
{
	closep(&move->dir_fd);
	closep(&move->done_fd);
	closep(&move->bad_fd);
	*move = (struct spool_move){ -1, -1, -1 };
}

bool spool_move_is(const struct spool_move *move, const struct stat *st)
{
	struct stat open_st;

	return fstat(move->dir_fd, &open_st) == 0 && open_st.st_dev == st->st_dev &&
	       open_st.st_ino == st->st_ino;
}

/* -EEXIST where the name is taken; never replaces. */
static int rename_new(int dir_fd, const char *name, int to_fd, const char *new_name)
{
	if (renameat2(dir_fd, name, to_fd, new_name, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOSYS)
		return -errno;
	/* A file system without RENAME_NOREPLACE; nobody else moves files to where we do. */
	if (faccessat(to_fd, new_name, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		return -EEXIST;
	return renameat(dir_fd, name, to_fd, new_name) < 0 ? -errno : 0;
}

static int rename_numbered(int dir_fd, const char *name, int to_fd, char *ret_name, size_t n_bytes)
{
	int r = -EEXIST;

	for (int i = 0; r == -EEXIST && i <= MAX_NUMBER; i++) {
		if (i == 0)
			(void)snprintf(ret_name, n_bytes, "%s", name);
		else
			(void)snprintf(ret_name, n_bytes, "%.*s.%d", (int)n_bytes - 8, name, i);
		r = rename_new(dir_fd, name, to_fd, ret_name);
	}
	return r;
}

static int check_identity(int dir_fd, const char *name, const struct spool_identity *identity)
{
	struct stat st;

	if (identity->inode == 0)
		return 0;
	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (st.st_ino != identity->inode || (uint64_t)st.st_size != identity->size ||
		st.st_mtim.tv_sec != identity->mtime_s ||
		st.st_mtim.tv_nsec != (long)identity->mtime_ns)
		return -ESTALE;
	return 0;
}

/* A courtesy to whoever looks: the refusal itself has gone to serve. */
static void write_reason(int bad_fd, const char *name, const char *reason)
{
	char path[300], temporary[300];
	_cleanup_(closep) int fd = -1;

	(void)snprintf(path, sizeof(path), "%.240s.reason", name);
	(void)snprintf(temporary, sizeof(temporary), ".%.240s.tmp", name);
	fd = openat(bad_fd, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0640);
	if (fd < 0)
		return;
	if (dprintf(fd, "%s\n", reason) < 0 || renameat(bad_fd, temporary, bad_fd, path) < 0)
		(void)unlinkat(bad_fd, temporary, 0);
}

int spool_move_file(struct spool_move *move, const char *name,
	const struct spool_identity *identity, const char *reason)
{
	char new_name[256];
	int r = check_identity(move->dir_fd, name, identity);

	if (r < 0)
		return r;
	r = rename_numbered(move->dir_fd, name, reason ? move->bad_fd : move->done_fd, new_name,
		sizeof(new_name));
	if (r == -ENOENT && faccessat(move->dir_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
		/* Somebody has cleared done/ or bad/ away. */
		r = open_sides(move);
		if (r == 0)
			r = rename_numbered(move->dir_fd, name,
				reason ? move->bad_fd : move->done_fd, new_name, sizeof(new_name));
	}
	if (r == 0 && reason)
		write_reason(move->bad_fd, new_name, reason);
	return r;
}
