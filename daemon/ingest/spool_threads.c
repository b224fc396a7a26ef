/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "ingest/spool_reader.h"

enum { N_THREADS = 2 };

STAILQ_HEAD(reads, spool_read);

struct spool_threads {
	struct spool_reader base;
	spool_read_done_fn *done;
	sd_event_source *source;
	int eventfd;
	unsigned n_flying; /* loop's own */
	pthread_t threads[N_THREADS];
	unsigned n_threads;

	pthread_mutex_t lock; /* over all below */
	pthread_cond_t changed;
	struct reads todo, ready;
	bool is_ending;
};

static int read_bytes(struct spool_read *read)
{
	while (read->n_done < read->bytes.n_bytes) {
		ssize_t n = pread(read->fd, read->bytes.map + read->n_done,
			read->bytes.n_bytes - read->n_done, (off_t)read->n_done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return diag_set(&read->reason, errno, "cannot be read");
		if (n == 0)
			return -EAGAIN; /* it shrank: somebody still writes */
		read->n_done += (size_t)n;
	}
	return 0;
}

static void read_file(struct spool_read *read)
{
	_cleanup_(closep) int fd =
		(int)syscall(SYS_openat2, read->dir_fd, read->name, &read->how, sizeof(read->how));

	if (fd < 0) {
		spool_read_open_failed(read, errno);
		return;
	}
	read->fd = fd;
	/* O_NONBLOCK was for the open. */
	if (statx(fd, "", AT_EMPTY_PATH, SPOOL_STATX_MASK, (struct statx *)&read->statx) < 0 ||
		fcntl(fd, F_SETFL, 0) < 0)
		read->code = diag_set(&read->reason, errno, "cannot be examined");
	else if (spool_read_check(read))
		read->code = read_bytes(read);
	if (read->code < 0)
		memfile_done(&read->bytes);
}

static void *work(void *user)
{
	struct spool_threads *threads = user;
	const uint64_t one = 1;

	(void)pthread_mutex_lock(&threads->lock);
	while (!threads->is_ending) {
		struct spool_read *read = STAILQ_FIRST(&threads->todo);

		if (!read) {
			(void)pthread_cond_wait(&threads->changed, &threads->lock);
			continue;
		}
		STAILQ_REMOVE_HEAD(&threads->todo, link);
		(void)pthread_mutex_unlock(&threads->lock);
		read_file(read);
		(void)pthread_mutex_lock(&threads->lock);
		STAILQ_INSERT_TAIL(&threads->ready, read, link);
		/* Fails only when the counter is full, and then the loop is awake anyway. */
		if (write(threads->eventfd, &one, sizeof(one)) < 0)
			continue;
	}
	(void)pthread_mutex_unlock(&threads->lock);
	return NULL;
}

static int on_eventfd(sd_event_source *source, int fd, uint32_t events, void *user)
{
	struct spool_threads *threads = user;
	struct reads ready = STAILQ_HEAD_INITIALIZER(ready);
	struct spool_read *read_done;
	uint64_t count;

	(void)source;
	(void)events;
	if (read(fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		return -errno;
	(void)pthread_mutex_lock(&threads->lock);
	STAILQ_CONCAT(&ready, &threads->ready);
	(void)pthread_mutex_unlock(&threads->lock);
	while ((read_done = STAILQ_FIRST(&ready))) {
		STAILQ_REMOVE_HEAD(&ready, link);
		threads->n_flying--;
		threads->done(read_done);
	}
	return 0;
}

static int threads_submit(struct spool_reader *reader, struct spool_read *read)
{
	struct spool_threads *threads = (struct spool_threads *)reader;

	if (threads->n_flying >= SPOOL_READER_DEPTH)
		return -EBUSY;
	spool_read_prepare(read);
	threads->n_flying++;
	(void)pthread_mutex_lock(&threads->lock);
	STAILQ_INSERT_TAIL(&threads->todo, read, link);
	(void)pthread_cond_signal(&threads->changed);
	(void)pthread_mutex_unlock(&threads->lock);
	return 0;
}

static int threads_flush(struct spool_reader *reader)
{
	(void)reader;
	return 0;
}

static void threads_free(struct spool_reader *reader)
{
	struct spool_threads *threads = (struct spool_threads *)reader;
	struct spool_read *read;

	(void)pthread_mutex_lock(&threads->lock);
	threads->is_ending = true;
	(void)pthread_cond_broadcast(&threads->changed);
	(void)pthread_mutex_unlock(&threads->lock);
	for (unsigned i = 0; i < threads->n_threads; i++)
		(void)pthread_join(threads->threads[i], NULL);
	STAILQ_FOREACH(read, &threads->ready, link)
	memfile_done(&read->bytes);
	(void)sd_event_source_disable_unref(threads->source);
	closep(&threads->eventfd);
	(void)pthread_cond_destroy(&threads->changed);
	(void)pthread_mutex_destroy(&threads->lock);
	free(threads);
}

static int start(struct spool_threads *threads, sd_event *event)
{
	int r;

	threads->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (threads->eventfd < 0)
		return -errno;
	r = sd_event_add_io(
		event, &threads->source, threads->eventfd, EPOLLIN, on_eventfd, threads);
	for (; r >= 0 && threads->n_threads < N_THREADS; threads->n_threads++) {
		r = -pthread_create(&threads->threads[threads->n_threads], NULL, work, threads);
		if (r < 0)
			break;
	}
	return r < 0 ? r : 0;
}

int spool_threads_new(struct spool_reader **ret_reader, sd_event *event, spool_read_done_fn *done)
{
	struct spool_threads *threads = calloc(1, sizeof(*threads));
	int r;

	if (!threads)
		return -ENOMEM;
	threads->base =
		(struct spool_reader){ "threads", threads_submit, threads_flush, threads_free };
	threads->done = done;
	threads->eventfd = -1;
	(void)pthread_mutex_init(&threads->lock, NULL);
	(void)pthread_cond_init(&threads->changed, NULL);
	STAILQ_INIT(&threads->todo);
	STAILQ_INIT(&threads->ready);
	r = start(threads, event);
	if (r < 0) {
		threads_free(&threads->base);
		return r;
	}
	*ret_reader = &threads->base;
	return 0;
}
