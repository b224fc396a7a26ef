/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/blob.h"
#include "model/base.h"

#define CHUNK_BYTES (1u << 20)
/* SEAL itself is not asked of others: seals can be added but never taken away. */
#define NEEDED_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

struct base {
	int fd;
	void *data;
	size_t n_bytes;
	struct digest digest;
	struct safetensors *tensors;
};

void base_free(struct base *base)
{
	if (!base)
		return;
	safetensors_free(base->tensors);
	if (base->data)
		(void)munmap(base->data, base->n_bytes);
	if (base->fd >= 0)
		(void)close(base->fd);
	free(base);
}

/* Copies to the end of from, whatever its size was said to be. */
static int copy_and_hash(int to, int from, struct digest *ret_digest)
{
	_cleanup_(freep) uint8_t *chunk = malloc(CHUNK_BYTES);
	struct digest_state state;

	if (!chunk)
		return -ENOMEM;
	digest_init(&state);
	for (;;) {
		ssize_t n = read(from, chunk, CHUNK_BYTES);
		int r;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		digest_update(&state, chunk, (size_t)n);
		r = blob_write_all(to, chunk, (size_t)n);
		if (r < 0)
			return r;
	}
	*ret_digest = digest_final(&state);
	return 0;
}

/* Takes fd, a sealed memfd, on success. digest NULL: compute it. */
static int base_map(struct base **ret_base, int fd, const struct digest *digest, struct diag *diag)
{
	_cleanup_(base_freep) struct base *base = NULL;
	struct stat st;
	void *data;
	int r;

	if (fstat(fd, &st) < 0)
		return diag_set(diag, errno, "base: %s", strerror(errno));
	if (st.st_size == 0)
		return diag_set(diag, EBADMSG, "base: empty file");
	base = calloc(1, sizeof(*base));
	if (!base)
		return -ENOMEM;
	base->fd = -1;
	/* Private: kernels before 6.7 refuse even a read-only shared mapping of a write-sealed
	 * memfd; unwritten private pages are the same page cache. */
	data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (data == MAP_FAILED)
		return diag_set(diag, errno, "base: mmap: %s", strerror(errno));
	base->data = data;
	base->n_bytes = (size_t)st.st_size;
	base->digest = digest ? *digest : digest_of(data, base->n_bytes);
	r = safetensors_open(&base->tensors, data, base->n_bytes, diag);
	if (r < 0)
		return r;
	base->fd = fd;
	*ret_base = TAKE_PTR(base);
	return 0;
}

int base_load(struct base **ret_base, const char *path, struct diag *diag)
{
	/* O_NONBLOCK: a FIFO where a file belongs must not hang us. */
	_cleanup_(closep) int from = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	_cleanup_(closep) int fd = -1;
	struct digest digest;
	struct stat st;
	int r;

	if (from < 0 || fstat(from, &st) < 0)
		return diag_set(diag, errno, "%s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return diag_set(diag, EINVAL, "%s: not a regular file", path);
	fd = memfd_create("kamen-base", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return diag_set(diag, errno, "memfd: %s", strerror(errno));
	r = copy_and_hash(fd, from, &digest);
	if (r < 0)
		return diag_set(diag, -r, "%s: %s", path, strerror(-r));
	if (fcntl(fd, F_ADD_SEALS, NEEDED_SEALS | F_SEAL_SEAL) < 0)
		return diag_set(diag, errno, "memfd: seal: %s", strerror(errno));
	r = base_map(ret_base, fd, &digest, diag);
	if (r == 0)
		(void)TAKE_FD(fd);
	return r;
}

int base_from_fd(struct base **ret_base, int fd, struct diag *diag)
{
	int seals = fcntl(fd, F_GET_SEALS);

	if (seals < 0 || (seals & NEEDED_SEALS) != NEEDED_SEALS)
		return diag_set(diag, EPERM, "base: descriptor %d is not a sealed memfd", fd);
	return base_map(ret_base, fd, NULL, diag);
}

int base_fd(const struct base *base)
{
	return base->fd;
}

const struct digest *base_digest(const struct base *base)
{
	return &base->digest;
}

const struct safetensors *base_tensors(const struct base *base)
{
	return base->tensors;
}
