/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "ingest/spool_reader.h"

int spool_reader_new(struct spool_reader **ret_reader, const char *backend, sd_event *event,
	spool_read_done_fn *done, struct diag *diag)
{
	bool is_auto = strcmp(backend, "auto") == 0;
	int r;

	if (is_auto || strcmp(backend, "uring") == 0) {
		r = spool_uring_new(ret_reader, event, done);
		if (r == 0)
			return 0;
		(void)diag_set(diag, -r, "io_uring: %s", strerror(-r));
		if (!is_auto)
			return r;
	}
	r = spool_threads_new(ret_reader, event, done);
	if (r < 0)
		return diag_set(diag, -r, "threads: %s", strerror(-r));
	return 0;
}

void spool_reader_free(struct spool_reader *reader)
{
	if (reader)
		reader->free(reader);
}

void spool_read_prepare(struct spool_read *read)
{
	read->code = 0;
	read->reason.text[0] = 0;
	read->fd = -1;
	read->n_done = 0;
	read->bytes = (struct memfile){ .fd = -1 };
	read->identity = (struct spool_identity){ 0 };
	read->how = (struct open_how){
		.flags = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};
}

void spool_read_open_failed(struct spool_read *read, int error)
{
	if (error == ELOOP)
		read->code = diag_set(&read->reason, ELOOP, "a symbolic link");
	else if (error == ENXIO)
		read->code = diag_set(&read->reason, EINVAL, "not a regular file");
	else
		read->code =
			diag_set(&read->reason, error, "cannot be opened: %s", strerror(error));
}

static bool is_settled(const struct statx *statx, uint32_t settle_ms)
{
	uint64_t changed_us =
		(uint64_t)statx->stx_mtime.tv_sec * 1000000 + statx->stx_mtime.tv_nsec / 1000;
	uint64_t now_us = clock_wall_us();

	/* A clock that was set back must not hold files for ever: the future counts as settled. */
	return now_us < changed_us || now_us - changed_us >= (uint64_t)settle_ms * 1000;
}

static int check(struct spool_read *read)
{
	const struct statx *statx = &read->statx;

	if (!S_ISREG(statx->stx_mode))
		return diag_set(&read->reason, EINVAL, "not a regular file");
	if (statx->stx_nlink != 1)
		return diag_set(&read->reason, EMLINK,
			"a file with %u names; only one with a single name is taken",
			statx->stx_nlink);
	if (statx->stx_size > read->max_bytes)
		return diag_set(&read->reason, EFBIG, "%llu bytes, at most %llu are taken",
			(unsigned long long)statx->stx_size, (unsigned long long)read->max_bytes);
	if (read->settle_ms > 0 && !is_settled(statx, read->settle_ms))
		return -EAGAIN;
	if (statx->stx_size == 0)
		return diag_set(&read->reason, ENODATA, "an empty file");
	return 0;
}

bool spool_read_check(struct spool_read *read)
{
	const struct statx *statx = &read->statx;

	read->identity = (struct spool_identity){ statx->stx_ino, statx->stx_size,
		statx->stx_mtime.tv_sec, statx->stx_mtime.tv_nsec };
	read->code = check(read);
	if (read->code == 0)
		read->code = memfile_new(&read->bytes, statx->stx_size);
	return read->code == 0;
}
