/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "csv.h"

int csv_make_parents(const char *path)
{
	char part[512];

	(void)snprintf(part, sizeof(part), "%s", path);
	for (char *c = strchr(part + 1, '/'); c; c = strchr(c + 1, '/')) {
		*c = 0;
		if (mkdir(part, 0777) < 0 && errno != EEXIST)
			return -errno;
		*c = '/';
	}
	return 0;
}

int csv_check(const char *path, const char *head)
{
	_cleanup_(fclosep) FILE *file = fopen(path, "re");
	_cleanup_(freep) char *line = NULL;
	size_t n_room = 0;
	ssize_t n;

	if (!file)
		return errno == ENOENT ? 0 : -errno;
	n = getline(&line, &n_room, file);
	return n <= 0 || line[n - 1] != '\n' || strcmp(line, head) == 0 ? 0 : -EBADMSG;
}

/* @return where the last whole line ends, or an errno */
static off_t end_of_lines(int fd)
{
	off_t end = lseek(fd, 0, SEEK_END);
	char c;

	for (; end > 0; end--) {
		if (pread(fd, &c, 1, end - 1) != 1)
			return -EIO;
		if (c == '\n')
			break;
	}
	return end < 0 ? -errno : end;
}

static int write_all(int fd, const char *text)
{
	size_t n = strlen(text);

	return write(fd, text, n) == (ssize_t)n ? 0 : -EIO;
}

int csv_append(const char *path, const char *head, const char *line)
{
	_cleanup_(closep) int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
	off_t end;
	int r = 0;

	if (fd < 0)
		return -errno;
	end = end_of_lines(fd);
	if (end < 0)
		return (int)end;
	if (ftruncate(fd, end) < 0 || lseek(fd, end, SEEK_SET) < 0)
		return -errno;
	if (end == 0)
		r = write_all(fd, head);
	if (r == 0)
		r = write_all(fd, line);
	return r < 0 || fsync(fd) == 0 ? r : -errno;
}
