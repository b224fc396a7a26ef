/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include "base/blob.h"
#include "base/cleanup.h"

/* The kernel copies a piece into one large page of its cache, without a break: where it has to find memory
 * first, 2 MB took 7 ms and more, in which a thread of inference that was woken on that CPU waited. */
#define MOST_AT_ONCE ((size_t)64 << 10)

int blob_write_all(int fd, const void *data, size_t n_bytes)
{
	const char *rest = data;

	while (n_bytes > 0) {
		ssize_t n = write(fd, rest, n_bytes < MOST_AT_ONCE ? n_bytes : MOST_AT_ONCE);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		rest += n;
		n_bytes -= (size_t)n;
	}
	return 0;
}

static int sync_parent(int dir_fd, const char *path)
{
	_cleanup_(freep) char *copy = strdup(path);
	_cleanup_(closep) int fd = -1;

	if (!copy)
		return -ENOMEM;
	fd = openat(dir_fd, dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) < 0)
		return -errno;
	return 0;
}

static int write_temporary(int dir_fd, const char *path, const void *data, size_t n_bytes)
{
	_cleanup_(closep) int fd =
		openat(dir_fd, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0640);
	int r;

	if (fd < 0)
		return -errno;
	r = blob_write_all(fd, data, n_bytes);
	if (r < 0)
		return r;
	return fsync(fd) < 0 ? -errno : 0;
}

int blob_write(int dir_fd, const char *path, const void *data, size_t n_bytes)
{
	_cleanup_(freep) char *temporary = NULL;
	int r;

	if (asprintf(&temporary, "%s.tmp", path) < 0) {
		temporary = NULL;
		return -ENOMEM;
	}
	r = write_temporary(dir_fd, temporary, data, n_bytes);
	if (r == 0 && renameat(dir_fd, temporary, dir_fd, path) < 0)
		r = -errno;
	if (r < 0) {
		(void)unlinkat(dir_fd, temporary, 0);
		return r;
	}
	return sync_parent(dir_fd, path);
}

static int read_all(int fd, char *data, size_t n_bytes)
{
	while (n_bytes > 0) {
		ssize_t n = read(fd, data, n_bytes);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		data += n;
		n_bytes -= (size_t)n;
	}
	return 0;
}

int blob_read(int dir_fd, const char *path, size_t max_bytes, void **ret_data, size_t *ret_n_bytes)
{
	/* O_NONBLOCK: a FIFO put where a file belongs must not hang us. */
	_cleanup_(closep) int fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	_cleanup_(freep) char *data = NULL;
	struct stat st;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	if ((uint64_t)st.st_size > max_bytes)
		return -EFBIG;
	data = malloc((size_t)st.st_size + 1);
	if (!data)
		return -ENOMEM;
	r = read_all(fd, data, (size_t)st.st_size);
	if (r < 0)
		return r;
	data[st.st_size] = 0;
	*ret_n_bytes = (size_t)st.st_size;
	*ret_data = TAKE_PTR(data);
	return 0;
}
