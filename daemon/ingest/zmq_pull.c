/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <zmq.h>

#include "ingest/bound.h"
#include "ingest/memfile.h"
#include "ingest/stream.h"
#include "ingest/zmq_pull.h"

enum {
	HIGH_WATER = 8, /* frames of one sender that wait in libzmq */
	BATCH = 16,     /* received before the loop turns to others */
};

struct zmq_pull {
	struct ingest *ingest;
	struct ingest_site *site;
	struct bound *bound;
	struct stream_senders senders;
};

/* A message of two parts; what is behind them is thrown away. */
struct pulled {
	zmq_msg_t header, image;
	bool is_two_parts;
};

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
	char who[STREAM_WHO_CHARS];
	struct diag diag = { "" };
	uint64_t n_lost;
	int r;

	if (!pulled->is_two_parts)
		r = diag_set(&diag, EBADMSG, "not a message of two parts");
	else if (!peers_may(ingest->zmq.peers, bound_peer(&pulled->header), site))
		r = diag_set(&diag, EACCES, "%.60s does not speak for this site",
			bound_peer(&pulled->header));
	else
		r = stream_parse(&frame, ingest->stream_wire, zmq_msg_data(&pulled->header),
			zmq_msg_size(&pulled->header), n_bytes, &diag);
	if (r == 0) {
		/* Nobody makes holes in another one's numbers by taking its name. */
		(void)snprintf(
			who, sizeof(who), "%s %s", frame.sender, bound_peer(&pulled->header));
		n_lost = stream_track(&pull->senders, who, frame.sequence);
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

	/* The descriptor rings once for many messages: look again after every one. */
	for (int i = 0; ingest_has_room(pull->ingest, n_most) && bound_is_readable(pull->bound);
		i++) {
		struct pulled pulled;
		int r;

		if (i == BATCH) {
			ingest_kick(pull->ingest);
			return;
		}
		(void)zmq_msg_init(&pulled.header);
		(void)zmq_msg_init(&pulled.image);
		r = receive(bound_socket(pull->bound), &pulled);
		if (r > 0)
			take(pull, &pulled);
		(void)zmq_msg_close(&pulled.header);
		(void)zmq_msg_close(&pulled.image);
		if (r == 0)
			return;
	}
}

static void on_ready(void *user)
{
	zmq_pull_pump(user);
}

static void on_failure(void *user, const char *reason)
{
	struct zmq_pull *pull = user;

	(void)outbox_put_refused(
		pull->ingest->outbox, pull->site->name, "zmq", pull->site->endpoint, reason, 0);
}

int zmq_pull_new(struct zmq_pull **ret_pull, struct ingest *ingest, struct ingest_site *site)
{
	struct zmq_pull *pull = calloc(1, sizeof(*pull));
	struct bound_options options = {
		.type = ZMQ_PULL,
		.endpoint = site->endpoint,
		.max_bytes = ingest->config->ingest_max_bytes,
		.receive_water = HIGH_WATER,
		.send_water = 1,
		.on_ready = on_ready,
		.on_failure = on_failure,
		.user = pull,
	};
	char name[80];
	int r;

	if (!pull)
		return -ENOMEM;
	pull->ingest = ingest;
	pull->site = site;
	(void)snprintf(name, sizeof(name), "site %s", site->name);
	options.name = name;
	r = bound_new(&pull->bound, &ingest->zmq, &options);
	if (r >= 0)
		r = ingest_count(ingest);
	if (r < 0) {
		zmq_pull_free(pull);
		return r;
	}
	*ret_pull = pull;
	return 0;
}

void zmq_pull_free(struct zmq_pull *pull)
{
	if (!pull)
		return;
	bound_free(pull->bound);
	free(pull);
}

void zmq_pull_set_site(struct zmq_pull *pull, struct ingest_site *site)
{
	pull->site = site;
}
