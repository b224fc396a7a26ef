/* SPDX-License-Identifier: Apache-2.0 */
#include "ingest/router.h"

#include <errno.h>
#include <string.h>
#include <zmq.h>

#include "ingest/askers.h"
#include "ingest/bound.h"
#include "ingest/reply.h"
#include "ingest/upstream.h"
#include "ops/endpoint.h"
#include "ops/log.h"

enum {
	BATCH = 16,        /* received before the loop turns to others */
	RECEIVE_WATER = 2, /* may be large: the rest waits at its sender */
	SEND_WATER = 256,  /* answers that a peer has not read */
	MAX_SOCKETS = 8,
	LINGER_MS = 500, /* for the last answers */
};

struct router_socket {
	struct router *router;
	struct bound *bound;
};

struct router {
	struct zmq_context *context;
	struct wire *wire;
	struct upstream *upstream;
	sd_event_source *time;
	struct router_socket sockets[MAX_SOCKETS];
	unsigned n_sockets;
	uint64_t max_bytes; /* of a frame */
	unsigned share;     /* slots that one peer may have */
	struct askers askers;
	struct router_counts counts;
};

/* A message as it came: the address, and at most one part more than makes sense. */
struct received {
	zmq_msg_t address, parts[ASK_MAX_PARTS];
	unsigned n_parts;
};

/* ---- answers */

static int send_part(void *socket, const void *data, size_t n_bytes, bool more)
{
	return zmq_send(socket, data, n_bytes, ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0)) < 0 ? -errno
											    : 0;
}

/* @return 0, -EAGAIN: it does not read, -EHOSTUNREACH: it is gone */
static int send_answer(struct router_socket *socket, const struct ask_part *address,
	const struct ask *ask, const Kamen__RouterReply *reply, const float *values)
{
	void *out = bound_socket(socket->bound);
	size_t n_header, n_values = (size_t)reply->n_embedding + reply->n_hardness;
	_cleanup_(freep) void *header = NULL;
	int r;

	if (!out)
		return -EHOSTUNREACH;
	r = wire_encode(&reply->base, &header, &n_header);
	if (r == 0)
		r = send_part(out, address->data, address->n_bytes, true);
	/* libzmq has room for all the parts where it had for the first. */
	if (r == 0 && ask->is_delimited)
		r = send_part(out, "", 0, true);
	if (r == 0)
		r = send_part(out, header, n_header, n_values > 0);
	if (r == 0 && n_values > 0)
		r = send_part(out, values, n_values * sizeof(float), false);
	if (r < 0)
		socket->router->counts.n_dropped++;
	/* Sending may have swallowed the ring for something that has come meanwhile. */
	if (bound_is_readable(socket->bound))
		bound_kick(socket->bound);
	return r;
}

static int send_error(struct router_socket *socket, const struct ask_part *address,
	const struct ask *ask, int code, const char *reason)
{
	Kamen__RouterReply reply;

	reply_fill_error(&reply, ask, code, reason);
	return send_answer(socket, address, ask, &reply, NULL);
}

/* ---- waiting */

static struct ask_part address_of(const struct asker *asker)
{
	return (struct ask_part){ asker->address, ASKER_ADDRESS_BYTES };
}

/* Nobody can read what is still waiting, so nobody computes it. */
static void note_gone(struct asker *asker, int r)
{
	if (r == -EHOSTUNREACH)
		asker_gone(asker);
}

static void arm(struct router *router)
{
	uint64_t until_ns = askers_deadline(&router->askers);

	if (until_ns == UINT64_MAX) {
		(void)sd_event_source_set_enabled(router->time, SD_EVENT_OFF);
		return;
	}
	(void)sd_event_source_set_time(router->time, until_ns / 1000);
	(void)sd_event_source_set_enabled(router->time, SD_EVENT_ONESHOT);
}

/* Ends a request that waits; its asker may be gone for good afterwards. */
static void end_waiting(struct asked *asked, int code, const char *reason)
{
	struct asker *asker = asked->asker;
	struct ask_part address = address_of(asker);

	asked_take(asked);
	note_gone(asker, send_error(asker->socket, &address, &asked->ask, code, reason));
	asked_free(asked);
}

static void end_late_of(struct asker *asker, uint64_t now)
{
	struct asked *asked = TAILQ_FIRST(&asker->waiting), *next;

	for (; asked && !asker->is_gone; asked = next) {
		next = TAILQ_NEXT(asked, link);
		if (asked->deadline_ns > 0 && asked->deadline_ns <= now)
			end_waiting(asked, -ETIMEDOUT, "deadline");
	}
	asker_put(asker);
}

static void end_late(struct router *router)
{
	/* Also those within the clock's step: sd-event rings in microseconds. */
	uint64_t now = clock_now_ns() + 1000;
	struct party *party, *next_party;
	struct asker *asker, *next;

	for (party = TAILQ_FIRST(&router->askers.parties); party; party = next_party) {
		next_party = TAILQ_NEXT(party, link);
		/* The party goes with its last connection. */
		for (asker = TAILQ_FIRST(&party->askers); asker; asker = next) {
			next = TAILQ_NEXT(asker, link);
			end_late_of(asker, now);
		}
	}
}

static int hand_over(struct router *router, struct asked *asked)
{
	const struct ask *ask = &asked->ask;
	struct kamen_request request = {
		.size = sizeof(request),
		.verb = (enum kamen_verb)ask->verb,
		.format = (enum kamen_format)ask->format,
		.site = ask->site,
		.n_bytes = ask->n_bytes,
		.width = ask->width,
		.height = ask->height,
		.stride = ask->stride,
		.deadline_ns = asked->deadline_ns,
		.trigger_id = ask->trigger_id,
		.part_id = ask->part_id,
		.capture_us = ask->capture_us,
		.encoder = ask->encoder,
		.mask = (enum kamen_mask)ask->mask,
		.version = ask->version,
		.px = ask->px,
		.flags = ask->flags,
	};

	memcpy(request.space, ask->space, sizeof(request.space));
	return upstream_ask(router->upstream, &request, ask->pixels, asked);
}

/* Hands over what there is room for, one a peer before anybody's second. */
static void feed(struct router *router)
{
	struct asker *asker;

	while ((asker = askers_next(&router->askers, router->share))) {
		struct asked *asked = TAILQ_FIRST(&asker->waiting);
		int r = hand_over(router, asked);

		if (r == -EBUSY)
			break;
		asker_had_turn(asker);
		if (r < 0) {
			end_waiting(asked, r, strerror(-r));
			asker_put(asker);
			continue;
		}
		asked_take(asked);
		asker->n_flying++;
		asker->party->n_flying++;
		/* serve has a copy: the frame itself may be large. */
		(void)zmq_msg_close(&asked->pixels);
		(void)zmq_msg_init(&asked->pixels);
	}
	arm(router);
}

static void end_flying(struct asked *asked, const Kamen__RouterReply *reply, const float *values)
{
	struct asker *asker = asked->asker;
	struct ask_part address = address_of(asker);

	asker->n_flying--;
	asker->party->n_flying--;
	if (!asker->is_gone)
		note_gone(asker, send_answer(asker->socket, &address, &asked->ask, reply, values));
	else
		asker->socket->router->counts.n_dropped++;
	asked_free(asked);
	asker_put(asker);
}

static void on_answered(void *user, void *token, const struct kamen_result *result)
{
	struct asked *asked = token;
	Kamen__RouterReply reply;

	(void)user;
	reply_fill(&reply, &asked->ask, result);
	/* They lie one behind the other (shm_layout.h). */
	end_flying(asked, &reply, result->embedding ? result->embedding : result->hardness);
}

static void on_lost(void *user, void *token, int code)
{
	struct asked *asked = token;
	Kamen__RouterReply reply;

	(void)user;
	reply_fill_error(&reply, &asked->ask, code, "serve is gone for the moment");
	end_flying(asked, &reply, NULL);
}

static void on_upstream_ready(void *user)
{
	feed(user);
}

static int on_time(sd_event_source *source, uint64_t usec, void *user)
{
	struct router *router = user;

	(void)source;
	(void)usec;
	end_late(router);
	arm(router);
	return 0;
}

/* ---- arrivals */

static bool receive(void *socket, struct received *received)
{
	bool more;

	received->n_parts = 0;
	(void)zmq_msg_init(&received->address);
	if (zmq_msg_recv(&received->address, socket, ZMQ_DONTWAIT) < 0) {
		(void)zmq_msg_close(&received->address);
		return false;
	}
	more = zmq_msg_more(&received->address);
	/* The parts of a message arrive together: what follows is there. */
	while (more) {
		zmq_msg_t rest;
		zmq_msg_t *part = received->n_parts < ASK_MAX_PARTS
					  ? &received->parts[received->n_parts]
					  : &rest;

		(void)zmq_msg_init(part);
		more = zmq_msg_recv(part, socket, ZMQ_DONTWAIT) >= 0 && zmq_msg_more(part);
		if (part == &rest)
			(void)zmq_msg_close(part);
		else
			received->n_parts++;
	}
	return true;
}

static void received_done(struct received *received)
{
	(void)zmq_msg_close(&received->address);
	for (unsigned i = 0; i < received->n_parts; i++)
		(void)zmq_msg_close(&received->parts[i]);
}

static uint64_t deadline_of(const struct ask *ask)
{
	uint64_t deadline_ns;

	if (ask->budget_ns == 0)
		return 0;
	return __builtin_add_overflow(clock_now_ns(), ask->budget_ns, &deadline_ns) ? 0
										    : deadline_ns;
}

static int enqueue(struct router_socket *socket, const struct ask_part *address, const char *peer,
	const struct ask *ask, zmq_msg_t *pixels)
{
	struct asker *asker = askers_get(&socket->router->askers, socket, address, peer);
	int r;

	if (!asker)
		return -ENOMEM;
	r = asker_add(asker, ask, deadline_of(ask), pixels);
	if (r < 0)
		asker_put(asker);
	return r;
}

static void welcome(
	struct router_socket *socket, const struct ask_part *address, const struct ask *ask)
{
	Kamen__RouterReply reply;
	Kamen__Welcome message;

	reply_fill_welcome(&reply, &message, ask, socket->router->max_bytes);
	(void)send_answer(socket, address, ask, &reply, NULL);
}

static int check(struct router *router, const struct ask *ask, const char *peer,
	const struct ask_part *address, struct diag *diag)
{
	/* Under an address of its own choice somebody else could take its answers. */
	if (address->n_bytes != ASKER_ADDRESS_BYTES || *(const uint8_t *)address->data != 0)
		return diag_set(diag, EINVAL, "leave ZMQ_ROUTING_ID to libzmq");
	if (ask->is_hello || ask->verb == SHM_ECHO ||
		peers_may(router->context->peers, peer, ask->site))
		return 0;
	router->counts.n_denied++;
	return diag_set(diag, EACCES, "%.60s does not speak for site '%.64s'", peer, ask->site);
}

static void take(struct router_socket *socket, struct received *received)
{
	struct router *router = socket->router;
	struct ask_part address = { zmq_msg_data(&received->address),
		zmq_msg_size(&received->address) };
	struct ask_part parts[ASK_MAX_PARTS];
	struct diag diag = { "" };
	const char *peer = "";
	struct ask ask;
	int r;

	for (unsigned i = 0; i < received->n_parts; i++)
		parts[i] = (struct ask_part){ zmq_msg_data(&received->parts[i]),
			zmq_msg_size(&received->parts[i]) };
	if (received->n_parts > 0)
		peer = bound_peer(&received->parts[0]);
	router->counts.n_requests++;
	r = ask_parse(&ask, router->wire, parts, received->n_parts, router->max_bytes, &diag);
	router->counts.n_malformed += r < 0;
	if (r == 0)
		r = check(router, &ask, peer, &address, &diag);
	if (r == 0 && ask.is_hello) {
		welcome(socket, &address, &ask);
		return;
	}
	if (r == 0) {
		r = enqueue(socket, &address, peer, &ask, &received->parts[received->n_parts - 1]);
		router->counts.n_busy += r == -EBUSY;
		if (r < 0)
			(void)diag_set(&diag, -r, "%s",
				r == -EBUSY ? "too many requests wait already" : strerror(-r));
	}
	if (r < 0)
		(void)send_error(socket, &address, &ask, r, diag.text);
}

static void on_ready(void *user)
{
	struct router_socket *socket = user;

	for (unsigned i = 0; bound_is_readable(socket->bound); i++) {
		struct received received;

		if (i == BATCH) {
			bound_kick(socket->bound);
			break;
		}
		if (!receive(bound_socket(socket->bound), &received))
			break;
		take(socket, &received);
		received_done(&received);
	}
	feed(socket->router);
}

/* ---- life */

static int bind_all(struct router *router)
{
	const char *at = router->context->config->zmq_router;
	char endpoint[ENDPOINT_CHARS];
	int r = 0;

	while (r >= 0 && endpoint_next(&at, endpoint)) {
		struct router_socket *socket = &router->sockets[router->n_sockets];
		struct bound_options options = {
			.type = ZMQ_ROUTER,
			.endpoint = endpoint,
			.name = "ROUTER",
			.max_bytes = router->max_bytes > ASK_MAX_HEADER ? router->max_bytes
									: ASK_MAX_HEADER,
			.receive_water = RECEIVE_WATER,
			.send_water = SEND_WATER,
			.linger_ms = LINGER_MS,
			.flag = ZMQ_ROUTER_MANDATORY,
			.on_ready = on_ready,
			.user = socket,
		};

		if (router->n_sockets == MAX_SOCKETS) {
			log_error("ROUTER: only %d endpoints are bound", MAX_SOCKETS);
			return 0;
		}
		socket->router = router;
		router->n_sockets++;
		r = bound_new(&socket->bound, router->context, &options);
	}
	return r;
}

static int make(struct router *router)
{
	const struct config *config = router->context->config;
	const struct upstream_calls calls = { on_answered, on_lost, on_upstream_ready, router };
	uint32_t n_slots = config->zmq_slots;
	char path[320];
	int r;

	router->max_bytes = config->max_frame_bytes < SHM_MAX_SLOT_BYTES ? config->max_frame_bytes
									 : SHM_MAX_SLOT_BYTES;
	/* A flood of one leaves slots to others. */
	router->share = n_slots - n_slots / 4;
	(void)snprintf(path, sizeof(path), "%s/data.sock", config->runtime_dir);
	r = wire_new(&router->wire);
	if (r >= 0)
		r = sd_event_add_time(router->context->event, &router->time, CLOCK_MONOTONIC,
			UINT64_MAX, 1, on_time, router);
	if (r >= 0)
		r = upstream_new(&router->upstream, router->context->event, path, n_slots,
			router->max_bytes, &calls);
	return r < 0 ? r : bind_all(router);
}

int router_new(struct router **ret_router, struct zmq_context *context)
{
	struct router *router;
	int r;

	*ret_router = NULL;
	if (!context->config->zmq_router[0])
		return 0;
	router = calloc(1, sizeof(*router));
	if (!router)
		return -ENOMEM;
	router->context = context;
	askers_init(&router->askers);
	r = make(router);
	if (r < 0) {
		router_free(router);
		return r;
	}
	*ret_router = router;
	return 0;
}

/* Nobody waits in vain for an answer that will not come. */
static void end_all_waiting(struct router *router)
{
	struct party *party;

	while ((party = TAILQ_FIRST(&router->askers.parties))) {
		struct asker *asker = TAILQ_FIRST(&party->askers);

		while (asker->n_waiting > 0)
			end_waiting(TAILQ_FIRST(&asker->waiting), -ENOTCONN, "kamend ends");
		asker_put(asker);
	}
}

void router_free(struct router *router)
{
	if (!router)
		return;
	/* First who calls back: then nothing is with serve any more. */
	upstream_free(router->upstream);
	end_all_waiting(router);
	for (unsigned i = 0; i < router->n_sockets; i++)
		bound_free(router->sockets[i].bound);
	(void)sd_event_source_disable_unref(router->time);
	wire_free(router->wire);
	free(router);
}

struct router_counts router_counts(const struct router *router)
{
	return router ? router->counts : (struct router_counts){ .n_requests = 0 };
}
