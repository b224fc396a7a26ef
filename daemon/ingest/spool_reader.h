/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_INGEST_SPOOL_READER_H
#define KAMEN_INGEST_SPOOL_READER_H

#include <linux/openat2.h>
#include <linux/stat.h>
#include <stdbool.h>
#include <sys/queue.h>
#include <systemd/sd-event.h>

#include "engine.h"
#include "ingest/memfile.h"

/*
 * Reads spool files, many at a time: openat2, statx of what was opened, read, close. Two backends
 * with one behaviour: io_uring, and threads where that is forbidden.
 */

/** Tells whether a name still means the file that was read. */
struct spool_identity {
	uint64_t inode, size;
	int64_t mtime_s;
	uint32_t mtime_ns;
};

/** One file. The caller's until submitted, and again from done() on. */
struct spool_read {
	int dir_fd;
	char name[256];
	uint64_t max_bytes;
	uint32_t settle_ms;
	void *user;

	/** 0; -EAGAIN: not settled or still changing; -ENOENT: gone; -ELOOP, -EMLINK, -EINVAL,
	 * -EFBIG, -ENODATA: not a file that is taken (reason says why); or what a call said. */
	int code;
	struct diag reason;
	struct memfile bytes; /* where code is 0; the receiver's */
	struct spool_identity identity;

	/* the reader's own */
	int fd;
	size_t n_done;
	int stage;
	struct statx statx;
	struct open_how how;
	STAILQ_ENTRY(spool_read) link;
};

typedef void spool_read_done_fn(struct spool_read *read);

struct spool_reader {
	const char *backend; /* "uring" or "threads" */
	int (*submit)(struct spool_reader *reader, struct spool_read *read);
	/** To be called after the last of a batch of submits. */
	int (*flush)(struct spool_reader *reader);
	/** Waits for what is in flight; done() is not called any more. */
	void (*free)(struct spool_reader *reader);
};

/** At most so many reads in flight. */
#define SPOOL_READER_DEPTH 64u

/**
 * @param backend  auto (io_uring, threads where it is not permitted), uring or threads
 * @param diag     with auto: why io_uring is not used, where it is not
 * @return 0, or why the named backend does not work here
 */
int spool_reader_new(struct spool_reader **ret_reader, const char *backend, sd_event *event,
	spool_read_done_fn *done, struct diag *diag);
void spool_reader_free(struct spool_reader *reader);

/* ---- for the backends */

int spool_uring_new(struct spool_reader **ret_reader, sd_event *event, spool_read_done_fn *done);
int spool_threads_new(struct spool_reader **ret_reader, sd_event *event, spool_read_done_fn *done);

#define SPOOL_STATX_MASK (STATX_TYPE | STATX_NLINK | STATX_SIZE | STATX_MTIME | STATX_INO)

/** Beneath the folder, through no symbolic link, never blocking on a FIFO. */
void spool_read_prepare(struct spool_read *read);
/** Says in code and reason what an open that failed means. */
void spool_read_open_failed(struct spool_read *read, int error);
/** Judges statx; makes room for the bytes. @return whether to go on and read */
bool spool_read_check(struct spool_read *read);

#endif
