/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "crash/disk.h"

static int open_record(const char *shadow, char kind, ino_t inode)
{
	char path[320];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%c%lu", shadow, kind, (unsigned long)inode);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	return fd < 0 ? -errno : fd;
}

static int copy_bytes(int from, int to)
{
	char chunk[64 << 10];
	off_t at = 0;
	ssize_t n;

	while ((n = pread(from, chunk, sizeof(chunk), at)) > 0) {
		if (write(to, chunk, (size_t)n) != n)
			return -EIO;
		at += n;
	}
	return n < 0 ? -errno : 0;
}

static int record_file(const char *shadow, int fd, ino_t inode)
{
	int out = open_record(shadow, 'i', inode), in = fd, r;
	char path[64];

	if (out < 0)
		return out;
	/* Only where it has to be: closing a second descriptor ends the process's locks on the file. */
	if ((fcntl(fd, F_GETFL) & O_ACCMODE) == O_WRONLY) {
		(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		in = open(path, O_RDONLY | O_CLOEXEC);
	}
	r = in < 0 ? -errno : copy_bytes(in, out);
	if (in != fd && in >= 0)
		(void)close(in);
	(void)close(out);
	return r;
}

static int write_names(DIR *dir, int out)
{
	const struct dirent *entry;

	while ((entry = readdir(dir))) {
		struct stat st;

		if (entry->d_name[0] == '.' &&
			(entry->d_name[1] == 0 ||
				(entry->d_name[1] == '.' && entry->d_name[2] == 0)))
			continue;
		if (fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		if (dprintf(out, "%c %lu %s\n", S_ISDIR(st.st_mode) ? 'd' : 'f',
			    (unsigned long)st.st_ino, entry->d_name) < 0)
			return -EIO;
	}
	return 0;
}

static int record_folder(const char *shadow, int fd, ino_t inode)
{
	int again = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), out, r;
	DIR *dir = again < 0 ? NULL : fdopendir(again);

	if (!dir) {
		r = -errno;
		if (again >= 0)
			(void)close(again);
		return r;
	}
	out = open_record(shadow, 'd', inode);
	r = out < 0 ? out : write_names(dir, out);
	if (out >= 0)
		(void)close(out);
	(void)closedir(dir);
	return r;
}

int disk_record(const char *shadow, int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	return S_ISDIR(st.st_mode) ? record_folder(shadow, fd, st.st_ino)
				   : record_file(shadow, fd, st.st_ino);
}

int disk_map(struct disk_control **ret_control, const char *shadow)
{
	char path[320];
	void *control;
	int fd;

	(void)snprintf(path, sizeof(path), "%s/control", shadow);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	control = mmap(NULL, sizeof(**ret_control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	(void)close(fd);
	if (control == MAP_FAILED)
		return -errno;
	*ret_control = control;
	return 0;
}
