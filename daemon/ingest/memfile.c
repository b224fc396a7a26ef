/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ingest/memfile.h"

enum { SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL };

int memfile_new(struct memfile *ret_file, size_t n_bytes)
{
	struct memfile file = { .fd = -1, .n_bytes = n_bytes };
	int r;

	if (n_bytes == 0)
		return -EINVAL;
	file.fd = memfd_create("kamen-image", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (file.fd < 0)
		return -errno;
	if (ftruncate(file.fd, (off_t)n_bytes) < 0) {
		r = -errno;
		(void)close(file.fd);
		return r;
	}
	file.map = mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.fd, 0);
	if (file.map == MAP_FAILED) {
		r = -errno;
		(void)close(file.fd);
		return r;
	}
	*ret_file = file;
	return 0;
}

static void unmap(struct memfile *file)
{
	if (file->map)
		(void)munmap(file->map, file->n_bytes);
	file->map = NULL;
}

void memfile_done(struct memfile *file)
{
	unmap(file);
	if (file->fd >= 0)
		(void)close(file->fd);
	file->fd = -1;
}

int memfile_seal(struct memfile *file, int *ret_fd)
{
	/* A writable mapping would make F_SEAL_WRITE fail. */
	unmap(file);
	if (fcntl(file->fd, F_ADD_SEALS, SEALS) < 0)
		return -errno;
	*ret_fd = file->fd;
	file->fd = -1;
	return 0;
}

int memfile_check_sealed(int fd, size_t n_bytes)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;

	if (seals < 0 || (seals & SEALS) != SEALS)
		return -EPERM;
	if (fstat(fd, &st) < 0)
		return -errno;
	return (uint64_t)st.st_size == n_bytes ? 0 : -EBADMSG;
}

int memfile_read(int fd, void *data, size_t n_bytes)
{
	for (size_t n_done = 0; n_done < n_bytes;) {
		ssize_t n = pread(fd, (char *)data + n_done, n_bytes - n_done, (off_t)n_done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EBADMSG;
		n_done += (size_t)n;
	}
	return 0;
}
