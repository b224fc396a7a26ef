/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <zmq.h>

#include "ingest/zap.h"
#include "ops/log.h"

#define ENDPOINT "inproc://zeromq.zap.01"

enum { MAX_FRAMES = 8, BATCH = 16, ADDRESS = 3, MAX_SHUNNED = 32 };

#define SHUN_NS (UINT64_C(10) * NS_PER_S)

struct zap {
	void *socket;
	sd_event_source *io, *more;
	struct peers *const *peers;
	uint64_t n_denied, n_connections;
	struct {
		char peer[PEER_CHARS];
		uint64_t until_ns;
	} shunned[MAX_SHUNNED]; /* a ring */
	unsigned n_shunned;
};

struct question {
	zmq_msg_t parts[MAX_FRAMES];
	struct zap_frame frames[MAX_FRAMES];
	unsigned n; /* MAX_FRAMES where there are more */
};

static bool is_readable(void *socket)
{
	int events = 0;
	size_t n = sizeof(events);

	return zmq_getsockopt(socket, ZMQ_EVENTS, &events, &n) == 0 && (events & ZMQ_POLLIN);
}

static bool receive(struct zap *zap, struct question *question)
{
	bool more = true;

	question->n = 0;
	while (more) {
		zmq_msg_t rest,
			*part = question->n < MAX_FRAMES ? &question->parts[question->n] : &rest;

		(void)zmq_msg_init(part);
		if (zmq_msg_recv(part, zap->socket, ZMQ_DONTWAIT) < 0) {
			(void)zmq_msg_close(part);
			return question->n > 0;
		}
		more = zmq_msg_more(part);
		if (part == &rest) {
			(void)zmq_msg_close(part);
			continue;
		}
		question->frames[question->n++] =
			(struct zap_frame){ zmq_msg_data(part), zmq_msg_size(part) };
	}
	return true;
}

static void send_frame(struct zap *zap, const void *data, size_t n_bytes, bool more)
{
	/* To ourselves, one answer a question: there is room. */
	(void)zmq_send(zap->socket, data, n_bytes, ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0));
}

static int address_chars(const struct zap_frame *address)
{
	return address->n_bytes < PEER_CHARS ? (int)address->n_bytes : (int)PEER_CHARS;
}

static bool is_shunned(const struct zap *zap, const char *peer)
{
	uint64_t now = clock_now_ns();

	for (unsigned i = 0; i < MAX_SHUNNED; i++)
		if (now < zap->shunned[i].until_ns && strcmp(zap->shunned[i].peer, peer) == 0)
			return true;
	return false;
}

/* A property of every message that comes over the connection, ZMTP's way: bound_connection(). */
static void send_metadata(struct zap *zap, bool is_let_in)
{
	static const char name[] = ZAP_CONNECTION;
	uint8_t data[1 + sizeof(name) - 1 + 4 + 24] = { sizeof(name) - 1 };
	char *value = (char *)data + 1 + sizeof(name) - 1 + 4;
	int n;

	if (!is_let_in) {
		send_frame(zap, "", 0, false);
		return;
	}
	memcpy(data + 1, name, sizeof(name) - 1);
	n = snprintf(value, 24, "%llu", (unsigned long long)++zap->n_connections);
	data[sizeof(name) + 3] = (uint8_t)n;
	send_frame(zap, data, 1 + sizeof(name) - 1 + 4 + (size_t)n, false);
}

static void answer(struct zap *zap, const struct question *question)
{
	char peer[PEER_CHARS] = "", code[8];
	const char *text;
	int status;

	status = zap_judge(*zap->peers, question->frames, question->n, peer, &text);
	if (status == 200 && is_shunned(zap, peer)) {
		status = 400;
		text = "It broke the rules a moment ago";
		peer[0] = '\0';
	}
	if (status != 200) {
		zap->n_denied++;
		log_warning("a ZeroMQ connection from %.*s is not let in: %s",
			question->n > ADDRESS ? address_chars(&question->frames[ADDRESS]) : 0,
			question->n > ADDRESS ? (const char *)question->frames[ADDRESS].data : "",
			text);
	}
	(void)snprintf(code, sizeof(code), "%d", status);
	send_frame(zap, "1.0", 3, true);
	if (question->n > 1)
		send_frame(zap, question->frames[1].data, question->frames[1].n_bytes, true);
	else
		send_frame(zap, "", 0, true);
	send_frame(zap, code, strlen(code), true);
	send_frame(zap, text, strlen(text), true);
	send_frame(zap, peer, strlen(peer), true);
	send_metadata(zap, status == 200);
}

static void pump(struct zap *zap)
{
	for (unsigned i = 0; i < BATCH && is_readable(zap->socket); i++) {
		struct question question;

		if (!receive(zap, &question))
			return;
		answer(zap, &question);
		for (unsigned k = 0; k < question.n; k++)
			(void)zmq_msg_close(&question.parts[k]);
	}
	/* The descriptor has rung for all of them. */
	if (is_readable(zap->socket))
		(void)sd_event_source_set_enabled(zap->more, SD_EVENT_ONESHOT);
}

static int on_readable(sd_event_source *source, int fd, uint32_t events, void *user)
{
	(void)source;
	(void)fd;
	(void)events;
	pump(user);
	return 0;
}

static int on_more(sd_event_source *source, void *user)
{
	(void)source;
	pump(user);
	return 0;
}

int zap_new(struct zap **ret_zap, void *context, sd_event *event, struct peers *const *peers)
{
	struct zap *zap = calloc(1, sizeof(*zap));
	int linger = 0, fd, r = 0;
	size_t n = sizeof(fd);

	if (!zap)
		return -ENOMEM;
	zap->peers = peers;
	zap->socket = zmq_socket(context, ZMQ_REP);
	if (!zap->socket || zmq_setsockopt(zap->socket, ZMQ_LINGER, &linger, sizeof(linger)) < 0 ||
		zmq_bind(zap->socket, ENDPOINT) < 0 ||
		zmq_getsockopt(zap->socket, ZMQ_FD, &fd, &n) < 0)
		r = -errno;
	if (r == 0)
		r = sd_event_add_io(event, &zap->io, fd, EPOLLIN | EPOLLET, on_readable, zap);
	if (r >= 0)
		r = sd_event_add_defer(event, &zap->more, on_more, zap);
	if (r < 0) {
		zap_free(zap);
		return r;
	}
	*ret_zap = zap;
	return 0;
}

void zap_free(struct zap *zap)
{
	if (!zap)
		return;
	(void)sd_event_source_disable_unref(zap->io);
	(void)sd_event_source_disable_unref(zap->more);
	if (zap->socket)
		(void)zmq_close(zap->socket);
	free(zap);
}

void zap_shun(struct zap *zap, const char *peer)
{
	unsigned i = zap->n_shunned++ % MAX_SHUNNED;

	(void)snprintf(zap->shunned[i].peer, PEER_CHARS, "%s", peer);
	zap->shunned[i].until_ns = clock_now_ns() + SHUN_NS;
}

uint64_t zap_n_denied(const struct zap *zap)
{
	return zap ? zap->n_denied : 0;
}
