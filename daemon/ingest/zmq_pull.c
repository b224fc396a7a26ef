/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <zmq.h>

#include "ingest/memfile.h"
#include "ingest/stream.h"
#include "ingest/zmq_pull.h"
#include "ops/log.h"

enum {
	HIGH_WATER = 8, /* frames of one sender that wait in libzmq */
	BATCH = 16,     /* received before the loop turns to others */
	RETRY_US = 2000000,
};

struct zmq_pull {
	struct ingest *ingest;
	struct ingest_site *site;
	void *socket; /* NULL: not bound yet */
	sd_event_source *io, *retry;
	struct stream_senders senders;
	bool is_failure_told;
};

/* A message of two parts; what is behind them is thrown away. */
struct pulled {
	zmq_msg_t header, image;
	bool is_two_parts;
};

int zmq_pull_check_endpoint(const char *endpoint)
{
	static const char *const prefixes[] = { "ipc:///", "tcp://127.0.0.1:", "tcp://[::1]:" };

	for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++) {
		size_t n = strlen(prefixes[i]);

		if (strncmp(endpoint, prefixes[i], n) == 0 && endpoint[n])
			return 0;
	}
	return -EINVAL;
}

static void tell(struct zmq_pull *pull, const char *reason)
{
	const char *endpoint = pull->site->endpoint;

	log_error("site %s: %s: %s", pull->site->name, endpoint, reason);
	(void)outbox_put_refused(
		pull->ingest->outbox, pull->site->name, "zmq", endpoint, reason, 0);
}

static bool is_readable(void *socket)
{
	int events = 0;
	size_t n = sizeof(events);

	return zmq_getsockopt(socket, ZMQ_EVENTS, &events, &n) == 0 && (events & ZMQ_POLLIN);
}

/* @return 1: received, 0: nothing there */
static int receive(void *socket, struct pulled *pulled)
{
	zmq_msg_t rest;
	bool more;

	if (zmq_msg_recv(&pulled->header, socket, ZMQ_DONTWAIT) < 0)
		return 0;
	pulled->is_two_parts = zmq_msg_more(&pulled->header);
	/* The parts of a message arrive together: what follows is there. */
	if (!pulled->is_two_parts || zmq_msg_recv(&pulled->image, socket, ZMQ_DONTWAIT) < 0)
		return 1;
	more = zmq_msg_more(&pulled->image);
	while (more) {
		pulled->is_two_parts = false;
		(void)zmq_msg_init(&rest);
		more = zmq_msg_recv(&rest, socket, ZMQ_DONTWAIT) >= 0 && zmq_msg_more(&rest);
		(void)zmq_msg_close(&rest);
	}
	return 1;
}

static int to_job(
	struct zmq_pull *pull, const struct stream_frame *frame, const void *data, size_t n_bytes)
{
	struct memfile bytes;
	struct arrival *job;
	int r;

	r = memfile_new(&bytes, n_bytes);
	if (r < 0)
		return r;
	memcpy(bytes.map, data, n_bytes);
	r = arrival_new(&job, pull->ingest, pull->site, ARRIVAL_ZMQ, n_bytes);
	if (r == 0) {
		job->fd = TAKE_FD(bytes.fd);
		job->n_bytes = n_bytes;
		job->format = frame->format;
		job->width = frame->width;
		job->height = frame->height;
		job->stride = frame->stride;
		job->capture_us = frame->capture_us;
		memcpy(job->sender, frame->sender, sizeof(job->sender));
		memcpy(job->part_id, frame->part_id, sizeof(job->part_id));
		admission_take(job);
	}
	memfile_done(&bytes);
	return r;
}

static void take(struct zmq_pull *pull, struct pulled *pulled)
{
	struct ingest *ingest = pull->ingest;
	const char *site = pull->site->name;
	size_t n_bytes = zmq_msg_size(&pulled->image);
	struct stream_frame frame = { .sender = "" };
	struct diag diag = { "" };
	uint64_t n_lost;
	int r;

	if (!pulled->is_two_parts)
		r = diag_set(&diag, EBADMSG, "not a message of two parts");
	else
		r = stream_parse(&frame, ingest->stream_wire, zmq_msg_data(&pulled->header),
			zmq_msg_size(&pulled->header), n_bytes, &diag);
	if (r == 0) {
		n_lost = stream_track(&pull->senders, frame.sender, frame.sequence);
		if (n_lost > 0)
			(void)outbox_put_gap(ingest->outbox, site, frame.sender, n_lost);
		r = to_job(pull, &frame, zmq_msg_data(&pulled->image), n_bytes);
	}
	if (r < 0)
		(void)outbox_put_refused(ingest->outbox, site, "zmq", frame.part_id,
			diag.text[0] ? diag.text : strerror(-r), 0);
}

void zmq_pull_pump(struct zmq_pull *pull)
{
	uint64_t n_most = pull->ingest->config->ingest_max_bytes;

	if (!pull->socket)
		return;
	/* The descriptor rings once for many messages: look again after every one. */
	for (int i = 0; ingest_has_room(pull->ingest, n_most) && is_readable(pull->socket); i++) {
		struct pulled pulled;
		int r;

		if (i == BATCH) {
			ingest_kick(pull->ingest);
			return;
		}
		(void)zmq_msg_init(&pulled.header);
		(void)zmq_msg_init(&pulled.image);
		r = receive(pull->socket, &pulled);
		if (r > 0)
			take(pull, &pulled);
		(void)zmq_msg_close(&pulled.header);
		(void)zmq_msg_close(&pulled.image);
		if (r == 0)
			return;
	}
}

static int on_readable(sd_event_source *source, int fd, uint32_t events, void *user)
{
	(void)source;
	(void)fd;
	(void)events;
	zmq_pull_pump(user);
	return 0;
}

static int set_option(void *socket, int option, int value)
{
	return zmq_setsockopt(socket, option, &value, sizeof(value)) < 0 ? -errno : 0;
}

static int set_options(struct zmq_pull *pull)
{
	int64_t max_bytes = (int64_t)pull->ingest->config->ingest_max_bytes;
	int r;

	if (zmq_setsockopt(pull->socket, ZMQ_MAXMSGSIZE, &max_bytes, sizeof(max_bytes)) < 0)
		return -errno;
	r = set_option(pull->socket, ZMQ_RCVHWM, HIGH_WATER);
	if (r == 0)
		r = set_option(pull->socket, ZMQ_LINGER, 0);
	return r;
}

static int watch(struct zmq_pull *pull)
{
	int fd = -1, r;
	size_t n = sizeof(fd);

	if (zmq_getsockopt(pull->socket, ZMQ_FD, &fd, &n) < 0)
		return -errno;
	/* Edge-triggered, or the loop would spin while there is no room. */
	r = sd_event_add_io(
		pull->ingest->event, &pull->io, fd, EPOLLIN | EPOLLET, on_readable, pull);
	return r < 0 ? r : 0;
}

static void unbind(struct zmq_pull *pull)
{
	pull->io = sd_event_source_disable_unref(pull->io);
	if (pull->socket)
		(void)zmq_close(pull->socket);
	pull->socket = NULL;
}

static int bind_socket(struct zmq_pull *pull)
{
	struct ingest *ingest = pull->ingest;
	int r;

	if (!ingest->zmq)
		ingest->zmq = zmq_ctx_new();
	pull->socket = ingest->zmq ? zmq_socket(ingest->zmq, ZMQ_PULL) : NULL;
	if (!pull->socket)
		return -errno;
	r = set_options(pull);
	if (r == 0 && zmq_bind(pull->socket, pull->site->endpoint) < 0)
		r = -errno;
	if (r == 0)
		r = watch(pull);
	if (r < 0)
		unbind(pull);
	return r;
}

static void try_bind(struct zmq_pull *pull)
{
	int r = bind_socket(pull);

	if (r == 0) {
		if (pull->is_failure_told)
			log_notice(
				"site %s: %s is bound now", pull->site->name, pull->site->endpoint);
		ingest_kick(pull->ingest);
		return;
	}
	if (!pull->is_failure_told)
		tell(pull, strerror(-r));
	pull->is_failure_told = true;
	(void)sd_event_source_set_time_relative(pull->retry, RETRY_US);
	(void)sd_event_source_set_enabled(pull->retry, SD_EVENT_ONESHOT);
}

static int on_retry(sd_event_source *source, uint64_t usec, void *user)
{
	(void)source;
	(void)usec;
	try_bind(user);
	return 0;
}

int zmq_pull_new(struct zmq_pull **ret_pull, struct ingest *ingest, struct ingest_site *site)
{
	struct zmq_pull *pull = calloc(1, sizeof(*pull));
	int r;

	if (!pull)
		return -ENOMEM;
	pull->ingest = ingest;
	pull->site = site;
	r = sd_event_add_time(
		ingest->event, &pull->retry, CLOCK_MONOTONIC, UINT64_MAX, 0, on_retry, pull);
	if (r < 0) {
		zmq_pull_free(pull);
		return r;
	}
	if (zmq_pull_check_endpoint(site->endpoint) < 0)
		tell(pull, "only ipc:///PATH, tcp://127.0.0.1:PORT and tcp://[::1]:PORT are taken");
	else
		try_bind(pull);
	*ret_pull = pull;
	return 0;
}

void zmq_pull_free(struct zmq_pull *pull)
{
	if (!pull)
		return;
	unbind(pull);
	(void)sd_event_source_disable_unref(pull->retry);
	free(pull);
}

void zmq_pull_set_site(struct zmq_pull *pull, struct ingest_site *site)
{
	pull->site = site;
}
