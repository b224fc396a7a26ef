/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "ingest/decoder.h"
#include "ingest/decoder_child.h"
#include "ingest/memfile.h"
#include "ingest/packet.h"

enum { N_WORKERS = DECODER_N_WORKERS, WALL_FACTOR = 10 };

struct decoder_worker {
	struct decoder *decoder;
	int channel, pidfd; /* -1: none */
	sd_event_source *io, *timer;
	bool is_confined;      /* has said so */
	decoder_done_fn *done; /* NULL: idle */
	void *user;
	bool is_killed;
};

struct decoder {
	int template; /* channel */
	uint32_t timeout_ms;
	sd_event *event;
	struct decoder_worker workers[N_WORKERS];
};

static int start_worker(struct decoder_worker *worker);

/* The template answers at once, whatever its workers do. */
static int ask_template(int template, int worker_end, int *ret_pidfd)
{
	struct decoder_fork message = { 0 };
	int pidfd = -1, r;

	r = packet_send(template, &message, sizeof(message), worker_end);
	if (r < 0)
		return r;
	r = packet_recv(template, &message, sizeof(message), 0, &pidfd);
	if (r != (int)sizeof(message))
		return r < 0 ? r : -EPIPE;
	if (message.code < 0) {
		closep(&pidfd);
		return message.code;
	}
	*ret_pidfd = pidfd;
	return 0;
}

static void stop_worker(struct decoder_worker *worker)
{
	worker->io = sd_event_source_disable_unref(worker->io);
	worker->timer = sd_event_source_disable_unref(worker->timer);
	if (worker->pidfd >= 0)
		(void)syscall(SYS_pidfd_send_signal, worker->pidfd, SIGKILL, NULL, 0);
	closep(&worker->pidfd);
	closep(&worker->channel);
	worker->pidfd = worker->channel = -1;
	worker->is_confined = worker->is_killed = false;
}

static void finish(struct decoder_worker *worker, const struct decode_result *result)
{
	decoder_done_fn *done = worker->done;

	/* Free before the call: done() may submit the next image. */
	worker->done = NULL;
	if (worker->timer)
		(void)sd_event_source_set_enabled(worker->timer, SD_EVENT_OFF);
	done(worker->user, result);
}

/* Its image fails, and a new worker takes its place. */
static void worker_ended(struct decoder_worker *worker, bool is_late)
{
	struct decode_result result = { .code = is_late ? -ETIMEDOUT : -EFAULT, .fd = -1 };
	int r;

	if (is_late)
		(void)snprintf(result.reason, sizeof(result.reason), "not decoded within %u ms",
			worker->decoder->timeout_ms);
	else
		(void)snprintf(result.reason, sizeof(result.reason), "the decoder crashed on it");
	stop_worker(worker);
	r = start_worker(worker);
	if (worker->done)
		finish(worker, &result);
	/* Without the template there is nothing to hope for here: the role starts anew. */
	if (r < 0)
		(void)sd_event_exit(worker->decoder->event, r);
}

/* What a worker says is believed no more than a file. */
static void check_answer(struct decode_result *result, const struct decoder_answer *answer, int fd)
{
	uint64_t n_bytes = (uint64_t)answer->width * answer->height * answer->n_channels;
	int r = 0;

	if (answer->code == 0 && (answer->width == 0 || answer->width > IMAGE_MAX_SIDE ||
					 answer->height == 0 || answer->height > IMAGE_MAX_SIDE ||
					 (answer->n_channels != 1 && answer->n_channels != 3)))
		r = -EBADMSG;
	if (answer->code == 0 && r == 0)
		r = memfile_check_sealed(fd, n_bytes);
	*result =
		(struct decode_result){ .code = r < 0 || answer->code > 0 ? -EFAULT : answer->code,
			.fd = -1,
			.width = answer->width,
			.height = answer->height,
			.n_channels = answer->n_channels };
	if (result->code == 0)
		result->fd = fd;
	else
		closep(&fd);
	if (result->code == answer->code)
		(void)snprintf(result->reason, sizeof(result->reason), "%.255s", answer->reason);
	else
		(void)snprintf(result->reason, sizeof(result->reason), "the decoder lost its way");
}

static int on_channel(sd_event_source *source, int channel, uint32_t events, void *user)
{
	struct decoder_worker *worker = user;
	struct decoder_answer answer;
	struct decode_result result;
	int fd = -1, r;

	(void)source;
	(void)events;
	r = packet_recv(channel, &answer, sizeof(answer), MSG_DONTWAIT, &fd);
	if (r == -EAGAIN)
		return 0;
	if (r != (int)sizeof(answer) || (worker->is_confined && !worker->done)) {
		closep(&fd);
		worker_ended(worker, worker->is_killed);
		return 0;
	}
	if (worker->is_confined && answer.code == -ETIMEDOUT) {
		closep(&fd);
		worker_ended(worker, true);
		return 0;
	}
	if (!worker->is_confined) {
		closep(&fd);
		worker->is_confined = true;
		return 0;
	}
	check_answer(&result, &answer, fd);
	finish(worker, &result);
	return 0;
}

static int on_wall_time(sd_event_source *source, uint64_t usec, void *user)
{
	struct decoder_worker *worker = user;

	(void)source;
	(void)usec;
	/* The channel's end follows. */
	worker->is_killed = true;
	if (worker->pidfd >= 0)
		(void)syscall(SYS_pidfd_send_signal, worker->pidfd, SIGKILL, NULL, 0);
	return 0;
}

static int watch_worker(struct decoder_worker *worker)
{
	sd_event *event = worker->decoder->event;
	int r;

	if (!event)
		return 0;
	r = sd_event_add_io(event, &worker->io, worker->channel, EPOLLIN, on_channel, worker);
	if (r == 0)
		r = sd_event_add_time(
			event, &worker->timer, CLOCK_MONOTONIC, 0, 0, on_wall_time, worker);
	if (r >= 0)
		r = sd_event_source_set_enabled(worker->timer, SD_EVENT_OFF);
	return r < 0 ? r : 0;
}

static int start_worker(struct decoder_worker *worker)
{
	_cleanup_(closep) int theirs = -1;
	int pair[2], r;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	worker->channel = pair[0];
	theirs = pair[1];
	r = ask_template(worker->decoder->template, theirs, &worker->pidfd);
	if (r == 0)
		r = watch_worker(worker);
	if (r < 0)
		stop_worker(worker);
	return r;
}

/* Waits for the first worker's word that it is confined: once, before there is a loop. */
static int check_confined(struct decoder_worker *worker, struct diag *diag)
{
	struct decoder_answer answer;
	int fd = -1, r;

	r = packet_recv(worker->channel, &answer, sizeof(answer), 0, &fd);
	closep(&fd);
	if (r != (int)sizeof(answer))
		return diag_set(diag, EPIPE, "the decoder does not start");
	if (answer.code < 0)
		return diag_set(diag, -answer.code, "the decoder cannot be confined: %s",
			strerror(-answer.code));
	worker->is_confined = true;
	return 0;
}

static int fork_template(struct decoder *decoder, decoder_image_fn *decode)
{
	int pair[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	pid = fork();
	if (pid == 0)
		decoder_template(pair[1], decode);
	(void)close(pair[1]);
	decoder->template = pair[0];
	return pid < 0 ? -errno : 0;
}

int decoder_new(struct decoder **ret_decoder, decoder_image_fn *decode, uint32_t timeout_ms,
	struct diag *diag)
{
	_cleanup_(decoder_freep) struct decoder *decoder = calloc(1, sizeof(*decoder));
	int r;

	if (!decoder)
		return diag_set(diag, ENOMEM, "no memory");
	decoder->timeout_ms = timeout_ms;
	for (unsigned i = 0; i < N_WORKERS; i++)
		decoder->workers[i] =
			(struct decoder_worker){ .decoder = decoder, .channel = -1, .pidfd = -1 };
	decoder->template = -1;
	r = fork_template(decoder, decode);
	for (unsigned i = 0; r == 0 && i < N_WORKERS; i++)
		r = start_worker(&decoder->workers[i]);
	if (r < 0)
		return diag_set(diag, -r, "the decoder does not start: %s", strerror(-r));
	for (unsigned i = 0; r == 0 && i < N_WORKERS; i++)
		r = check_confined(&decoder->workers[i], diag);
	if (r < 0)
		return r;
	*ret_decoder = TAKE_PTR(decoder);
	return 0;
}

int decoder_attach(struct decoder *decoder, sd_event *event)
{
	int r = 0;

	decoder->event = event;
	for (unsigned i = 0; r == 0 && i < N_WORKERS; i++)
		r = watch_worker(&decoder->workers[i]);
	return r;
}

void decoder_free(struct decoder *decoder)
{
	if (!decoder)
		return;
	for (unsigned i = 0; i < N_WORKERS; i++)
		stop_worker(&decoder->workers[i]);
	closep(&decoder->template);
	free(decoder);
}

static struct decoder_worker *idle_worker(const struct decoder *decoder)
{
	for (unsigned i = 0; i < N_WORKERS; i++) {
		const struct decoder_worker *worker = &decoder->workers[i];

		if (worker->channel >= 0 && !worker->done)
			return (struct decoder_worker *)(uintptr_t)worker;
	}
	return NULL;
}

bool decoder_is_ready(const struct decoder *decoder)
{
	return idle_worker(decoder) != NULL;
}

int decoder_decode(struct decoder *decoder, const struct decode_request *request,
	decoder_done_fn *done, void *user)
{
	struct decoder_worker *worker = idle_worker(decoder);
	struct decoder_job job = { request->n_bytes, request->format, request->width,
		request->height, request->stride, request->shorter_px, decoder->timeout_ms };
	uint64_t wall_us = (uint64_t)decoder->timeout_ms * 1000 * WALL_FACTOR;
	int r;

	if (!worker)
		return -EBUSY;
	r = packet_send(worker->channel, &job, sizeof(job), request->fd);
	if (r < 0)
		return r == -EPIPE ? -EBUSY : r; /* its end is about to be seen */
	worker->done = done;
	worker->user = user;
	(void)sd_event_source_set_time_relative(worker->timer, wall_us);
	(void)sd_event_source_set_enabled(worker->timer, SD_EVENT_ONESHOT);
	return 0;
}
