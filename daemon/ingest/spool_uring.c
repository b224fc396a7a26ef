/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <sys/eventfd.h>

#include "ingest/spool_reader.h"

/*
 * Every file is at one stage, and one entry of it is in the ring:
 *
 *   OPEN ──> STATX ──> READ ─┐ (again until all is there) ──> CLOSE ──> done()
 *                       └────┘   whatever fails goes to CLOSE
 */
enum { STAGE_OPEN, STAGE_STATX, STAGE_READ, STAGE_CLOSE };

enum { MAX_READ = 1 << 30 };

struct spool_uring {
	struct spool_reader base;
	struct io_uring ring;
	int eventfd;
	sd_event_source *source;
	spool_read_done_fn *done;
	unsigned n_flying;
	bool is_ending;
};

static struct io_uring_sqe *get_entry(struct spool_uring *uring)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);

	if (!sqe && io_uring_submit(&uring->ring) >= 0)
		sqe = io_uring_get_sqe(&uring->ring);
	return sqe;
}

/* Puts the read's present stage into the ring. */
static int push_stage(struct spool_uring *uring, struct spool_read *read)
{
	struct io_uring_sqe *sqe = get_entry(uring);
	size_t n_left = read->bytes.n_bytes - read->n_done;

	if (!sqe)
		return -EBUSY;
	switch (read->stage) {
	case STAGE_OPEN:
		io_uring_prep_openat2(sqe, read->dir_fd, read->name, &read->how);
		break;
	case STAGE_STATX:
		io_uring_prep_statx(
			sqe, read->fd, "", AT_EMPTY_PATH, SPOOL_STATX_MASK, &read->statx);
		break;
	case STAGE_READ:
		io_uring_prep_read(sqe, read->fd, read->bytes.map + read->n_done,
			n_left < MAX_READ ? (unsigned)n_left : MAX_READ, read->n_done);
		break;
	default:
		io_uring_prep_close(sqe, read->fd);
		break;
	}
	io_uring_sqe_set_data(sqe, read);
	return 0;
}

static void finish(struct spool_uring *uring, struct spool_read *read)
{
	uring->n_flying--;
	if (read->code < 0 || uring->is_ending)
		memfile_done(&read->bytes);
	if (!uring->is_ending)
		uring->done(read);
}

static void opened(struct spool_read *read, int result)
{
	if (result < 0) {
		spool_read_open_failed(read, -result);
		return;
	}
	read->fd = result;
	read->stage = STAGE_STATX;
}

static void statted(struct spool_read *read, int result)
{
	read->stage = STAGE_CLOSE;
	if (result < 0)
		read->code = diag_set(&read->reason, -result, "cannot be examined");
	else if (spool_read_check(read))
		read->stage = STAGE_READ;
}

static void got_bytes(struct spool_read *read, int result)
{
	/* O_NONBLOCK was for the open; on some file systems it also stops a read of a cold page. */
	if (result == -EAGAIN && fcntl(read->fd, F_SETFL, 0) == 0)
		return;
	if (result == -EINTR)
		return;
	read->stage = STAGE_CLOSE;
	if (result < 0) {
		read->code = diag_set(&read->reason, -result, "cannot be read");
		return;
	}
	if (result == 0) {
		read->code = -EAGAIN; /* it shrank: somebody still writes */
		return;
	}
	read->n_done += (size_t)result;
	if (read->n_done < read->bytes.n_bytes)
		read->stage = STAGE_READ;
}

static void completed(struct spool_uring *uring, struct spool_read *read, int result)
{
	bool is_open = true;
	int r;

	switch (read->stage) {
	case STAGE_OPEN:
		opened(read, result);
		is_open = result >= 0;
		break;
	case STAGE_STATX:
		statted(read, result);
		break;
	case STAGE_READ:
		got_bytes(read, result);
		break;
	default:
		is_open = false;
		if (result < 0 && read->code == 0)
			read->code = diag_set(&read->reason, -result, "cannot be closed");
		break;
	}
	if (!is_open) {
		finish(uring, read);
		return;
	}
	r = push_stage(uring, read);
	if (r < 0) {
		closep(&read->fd);
		read->code = r;
		finish(uring, read);
	}
}

static void reap(struct spool_uring *uring)
{
	struct io_uring_cqe *cqe;

	while (io_uring_peek_cqe(&uring->ring, &cqe) == 0) {
		struct spool_read *read = io_uring_cqe_get_data(cqe);
		int result = cqe->res;

		io_uring_cqe_seen(&uring->ring, cqe);
		completed(uring, read, result);
	}
}

static int uring_flush(struct spool_reader *reader)
{
	struct spool_uring *uring = (struct spool_uring *)reader;
	int r = io_uring_submit(&uring->ring);

	/* Busy: entries stay queued, and the completions that come make room. */
	return r < 0 && r != -EBUSY && r != -EAGAIN && r != -EINTR ? r : 0;
}

static int on_eventfd(sd_event_source *source, int fd, uint32_t events, void *user)
{
	struct spool_uring *uring = user;
	uint64_t count;

	(void)source;
	(void)events;
	/* Before the queue is looked at, so that what comes after rings again. */
	if (read(fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		return -errno;
	reap(uring);
	return uring_flush(&uring->base);
}

static int uring_submit(struct spool_reader *reader, struct spool_read *read)
{
	struct spool_uring *uring = (struct spool_uring *)reader;
	int r;

	if (uring->n_flying >= SPOOL_READER_DEPTH)
		return -EBUSY;
	spool_read_prepare(read);
	read->stage = STAGE_OPEN;
	r = push_stage(uring, read);
	if (r == 0)
		uring->n_flying++;
	return r;
}

static void uring_free(struct spool_reader *reader)
{
	struct spool_uring *uring = (struct spool_uring *)reader;
	struct io_uring_cqe *cqe;

	/* The kernel may be writing into a read's memory. */
	uring->is_ending = true;
	while (uring->n_flying > 0 && io_uring_submit(&uring->ring) >= 0 &&
		io_uring_wait_cqe(&uring->ring, &cqe) == 0)
		reap(uring);
	(void)sd_event_source_disable_unref(uring->source);
	io_uring_queue_exit(&uring->ring);
	closep(&uring->eventfd);
	free(uring);
}

/* A kernel from before openat2 in the ring has the ring but not the operation. */
static int check_operations(struct io_uring *ring)
{
	static const int operations[] = { IORING_OP_OPENAT2, IORING_OP_STATX, IORING_OP_READ,
		IORING_OP_CLOSE };
	struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
	int r = probe ? 0 : -EOPNOTSUPP;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(operations); i++)
		if (!io_uring_opcode_supported(probe, operations[i]))
			r = -EOPNOTSUPP;
	if (probe)
		io_uring_free_probe(probe);
	return r;
}

static int watch(struct spool_uring *uring, sd_event *event)
{
	int r = check_operations(&uring->ring);

	if (r < 0)
		return r;
	uring->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (uring->eventfd < 0)
		return -errno;
	r = io_uring_register_eventfd(&uring->ring, uring->eventfd);
	if (r < 0)
		return r;
	r = sd_event_add_io(event, &uring->source, uring->eventfd, EPOLLIN, on_eventfd, uring);
	return r < 0 ? r : 0;
}

int spool_uring_new(struct spool_reader **ret_reader, sd_event *event, spool_read_done_fn *done)
{
	struct spool_uring *uring = calloc(1, sizeof(*uring));
	int r;

	if (!uring)
		return -ENOMEM;
	uring->base = (struct spool_reader){ "uring", uring_submit, uring_flush, uring_free };
	uring->done = done;
	uring->eventfd = -1;
	r = io_uring_queue_init(SPOOL_READER_DEPTH, &uring->ring, 0);
	if (r < 0) {
		free(uring);
		return r;
	}
	r = watch(uring, event);
	if (r < 0) {
		uring_free(&uring->base);
		return r;
	}
	*ret_reader = &uring->base;
	return 0;
}
