/* SPDX-License-Identifier: Apache-2.0 */
#include "key_pair.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "kmask_file.h"

static int write_secret(const char *path, const char *line)
{
	_cleanup_(closep) int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	size_t n = strlen(line);

	if (fd < 0)
		return -errno;
	if (write(fd, line, n) != (ssize_t)n || fsync(fd) < 0) {
		int r = errno ? -errno : -EIO;

		(void)unlink(path);
		return r;
	}
	return 0;
}

int key_pair_write(const char *path, const char *secret_line, const char *public_line)
{
	char public_path[4096];
	int r;

	if (snprintf(public_path, sizeof(public_path), "%s.pub", path) >= (int)sizeof(public_path))
		return -ENAMETOOLONG;
	if (access(public_path, F_OK) == 0)
		return -EEXIST;
	r = write_secret(path, secret_line);
	if (r < 0)
		return r;
	r = kmask_file_write(public_path, public_line, strlen(public_line));
	/* A secret without its public half would only be in the way of the next try. */
	if (r < 0 && access(public_path, F_OK) != 0)
		(void)unlink(path);
	return r;
}
