/* SPDX-License-Identifier: Apache-2.0 */
#include "transport.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "wire.h"

#define NS_PER_S UINT64_C(1000000000)

struct dealer {
	void *context, *socket;
	struct wire *wire;
	uint64_t next_id;
	uint64_t ids[LOAD_MAX_DEPTH];                                /* 0: the place is free */
	uint64_t budgets[LOAD_MAX_DEPTH], deadlines[LOAD_MAX_DEPTH]; /* as asked */
	uint32_t n_up, depth;
};

static void dealer_close(void *connection)
{
	struct dealer *d = connection;

	if (!d)
		return;
	if (d->socket)
		(void)zmq_close(d->socket);
	if (d->context)
		(void)zmq_ctx_term(d->context);
	wire_free(d->wire);
	free(d);
}

static int dealer_open(void **ret_connection, const struct load *load)
{
	struct dealer *d = calloc(1, sizeof(*d));
	const int linger = 0;

	if (!d)
		return -ENOMEM;
	d->depth = load->depth;
	d->context = zmq_ctx_new();
	d->socket = d->context ? zmq_socket(d->context, ZMQ_DEALER) : NULL;
	if (!d->socket || wire_new(&d->wire) < 0 ||
		zmq_setsockopt(d->socket, ZMQ_LINGER, &linger, sizeof(linger)) < 0 ||
		zmq_connect(d->socket, load->endpoint) < 0) {
		dealer_close(d);
		return -EIO;
	}
	*ret_connection = d;
	return 0;
}

static void request_fill(Kamen__RouterRequest *wire, const struct kamen_request *q, uint64_t id)
{
	uint64_t now = bench_now_ns();

	*wire = (Kamen__RouterRequest)KAMEN__ROUTER_REQUEST__INIT;
	wire->major = WIRE_MAJOR;
	wire->id = id;
	wire->site = (char *)(uintptr_t)q->site;
	wire->has_verb = wire->has_format = wire->has_width = wire->has_height = true;
	wire->has_trigger_id = wire->has_part_id = true;
	wire->has_capture_us = wire->has_encoder = true;
	wire->has_mask = wire->has_version = true;
	wire->verb = (uint32_t)q->verb;
	wire->format = (uint32_t)q->format;
	wire->width = q->width;
	wire->height = q->height;
	wire->trigger_id = q->trigger_id;
	wire->part_id = q->part_id;
	wire->capture_us = q->capture_us;
	wire->encoder = q->encoder;
	wire->mask = (uint32_t)q->mask;
	wire->version = q->version;
	/* What is due already gets the shortest there is: 0 would be none. */
	wire->has_budget_ns = q->deadline_ns > 0;
	wire->budget_ns = q->deadline_ns > now ? q->deadline_ns - now : 1;
}

static int frame_send(struct dealer *d, size_t n_bytes, int fill)
{
	zmq_msg_t frame;

	if (zmq_msg_init_size(&frame, n_bytes) < 0)
		return -ENOMEM;
	memset(zmq_msg_data(&frame), fill, n_bytes);
	if (zmq_msg_send(&frame, d->socket, 0) >= 0)
		return 0;
	(void)zmq_msg_close(&frame);
	return -zmq_errno();
}

static int dealer_submit(void *connection, const struct kamen_request *request, int fill,
	uint32_t *ret_at, uint64_t *ret_id)
{
	struct dealer *d = connection;
	Kamen__RouterRequest wire;
	uint32_t at = 0;
	void *bytes;
	size_t n;
	int r;

	while (at < d->depth && d->ids[at] > 0)
		at++;
	if (at == d->depth)
		return -EBUSY;
	request_fill(&wire, request, d->next_id + 1);
	r = wire_encode(&wire.base, &bytes, &n);
	if (r < 0)
		return r;
	r = zmq_send(d->socket, bytes, n, ZMQ_SNDMORE) < 0 ? -zmq_errno() : 0;
	free(bytes);
	if (r == 0)
		r = frame_send(d, request->n_bytes, fill);
	if (r < 0)
		return r;
	d->ids[at] = ++d->next_id;
	d->budgets[at] = wire.has_budget_ns ? wire.budget_ns : 0;
	d->deadlines[at] = request->deadline_ns;
	d->n_up++;
	*ret_at = at;
	*ret_id = d->next_id;
	return 0;
}

static void answer_fill(struct dealer *d, const Kamen__RouterReply *reply, struct load_answer *ret)
{
	*ret = (struct load_answer){
		.at = LOAD_MAX_DEPTH - 1,
		.id = reply->id,
		.code = reply->code,
		.has_verdict = reply->verdict != KAMEN_NO_VERDICT,
		.trigger_id = reply->trigger_id,
		.part_id = reply->part_id,
		.capture_us = reply->capture_us,
		.encoder = reply->encoder,
		.compute_ns = reply->compute_ns,
	};
	(void)snprintf(ret->reason, sizeof(ret->reason), "%s", reply->reason ? reply->reason : "");
	/* One that is nobody's has the last place, with an id that is not there. */
	for (uint32_t i = 0; i < d->depth; i++)
		if (d->ids[i] == reply->id) {
			ret->at = i;
			/* The budget is what it could echo of the deadline. */
			ret->deadline_ns =
				reply->budget_ns == d->budgets[i] ? d->deadlines[i] : UINT64_MAX;
			d->ids[i] = 0;
			d->n_up--;
			return;
		}
}

/* 1: an answer, 0: none is there. */
static int receive(struct dealer *d, struct load_answer *ret_answer)
{
	ProtobufCMessage *message = NULL;
	zmq_msg_t part;
	int r, more;

	(void)zmq_msg_init(&part);
	if (zmq_msg_recv(&part, d->socket, ZMQ_DONTWAIT) < 0) {
		(void)zmq_msg_close(&part);
		return zmq_errno() == EAGAIN ? 0 : -zmq_errno();
	}
	r = wire_decode(d->wire, &kamen__router_reply__descriptor, zmq_msg_data(&part),
		zmq_msg_size(&part), &message);
	if (r == 0)
		answer_fill(d, (const Kamen__RouterReply *)message, ret_answer);
	do {
		more = zmq_msg_more(&part);
		(void)zmq_msg_close(&part);
		(void)zmq_msg_init(&part);
		if (more && zmq_msg_recv(&part, d->socket, 0) < 0)
			r = -EIO;
	} while (more && r == 0);
	(void)zmq_msg_close(&part);
	return r < 0 ? r : 1;
}

static int dealer_wait(void *connection, uint64_t timeout_ns, struct load_answer *ret_answer)
{
	struct dealer *d = connection;
	uint64_t now = bench_now_ns(), until = now + timeout_ns;
	struct pollfd poller = { .events = POLLIN };
	size_t n = sizeof(poller.fd);

	if (zmq_getsockopt(d->socket, ZMQ_FD, &poller.fd, &n) < 0)
		return -zmq_errno();
	for (;;) {
		/* Receiving deals with what the descriptor, edge-triggered, has told. */
		int r = receive(d, ret_answer);
		uint64_t left;

		if (r != 0)
			return r < 0 ? r : 0;
		if (d->n_up == 0)
			return -EAGAIN;
		now = bench_now_ns();
		if (now >= until)
			return -ETIMEDOUT;
		left = until - now;
		if (ppoll(&poller, 1,
			    &(struct timespec){
				    (time_t)(left / NS_PER_S), (long)(left % NS_PER_S) },
			    NULL) < 0)
			return -errno;
	}
}

const struct transport transport_zmq = {
	.name = "zmq",
	.open = dealer_open,
	.close = dealer_close,
	.submit = dealer_submit,
	.wait = dealer_wait,
};
