/* SPDX-License-Identifier: Apache-2.0 */
#include "ingest/publisher.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/queue.h>
#include <zmq.h>

#include "ingest/bound.h"
#include "ingest/zap.h"
#include "ops/endpoint.h"
#include "ops/log.h"

enum {
	MAX_SOCKETS = 8,
	BATCH = 64,        /* subscriptions before the loop turns to others */
	SEND_WATER = 1000, /* of one subscriber that does not read */
	MAX_TOPIC = 256,
	MAX_BYTES = 4096, /* of a subscription, and of what a handshake takes */
	MAX_KNOWN = 4096,
};

/* What a connection listens for, or did: its end is told by its topics alone. */
struct heard {
	SLIST_ENTRY(heard) link;
	struct publisher_socket *from;
	uint64_t connection; /* 0: the end of one of those that listen for the same */
	size_t n_bytes;
	char topic[MAX_TOPIC];
};

struct publisher_socket {
	struct publisher *publisher;
	struct bound *bound;
	uint64_t n_subscriptions;
};

struct publisher {
	struct zmq_context *context;
	struct publisher_socket sockets[MAX_SOCKETS];
	unsigned n_sockets;
	publisher_fn *on_heard;
	void *user;
	SLIST_HEAD(, heard) known;
	unsigned n_known;
	uint64_t n_subscriptions, n_sent;
};

/* For the connection that the last message came from. */
static void subscribe(void *socket, bool on, const void *topic, size_t n_bytes)
{
	(void)zmq_setsockopt(socket, on ? ZMQ_SUBSCRIBE : ZMQ_UNSUBSCRIBE, topic, n_bytes);
}

/* A prefix that is wider than what the peer may hear stands for those of its sites that it covers. */
static void narrow(
	struct publisher *publisher, void *socket, bool on, const char *peer, const char *prefix)
{
	const struct peers *peers = publisher->context->peers;
	const char *slash = strchr(prefix, '/'), *site;
	char topic[MAX_TOPIC];

	if (slash) {
		(void)snprintf(topic, sizeof(topic), "%.*s", (int)(slash - prefix), prefix);
		if (peers_may(peers, peer, topic))
			subscribe(socket, on, prefix, strlen(prefix));
		return;
	}
	for (unsigned i = 0; (site = peers_site(peers, peer, i)); i++) {
		if (strncmp(site, prefix, strlen(prefix)) != 0)
			continue;
		(void)snprintf(topic, sizeof(topic), "%s/", site);
		subscribe(socket, on, topic, strlen(topic));
	}
}

static void forget(struct publisher *publisher, struct heard *heard)
{
	SLIST_REMOVE(&publisher->known, heard, heard, link);
	publisher->n_known -= heard->connection > 0;
	free(heard);
}

/* from: NULL: of every socket */
static void forget_all(struct publisher *publisher, const struct publisher_socket *from)
{
	struct heard *heard, *next;

	for (heard = SLIST_FIRST(&publisher->known); heard; heard = next) {
		next = SLIST_NEXT(heard, link);
		if (!from || heard->from == from)
			forget(publisher, heard);
	}
}

static void set_count(struct publisher_socket *from, uint64_t n)
{
	struct publisher *publisher = from->publisher;
	uint64_t was = publisher->n_subscriptions;

	publisher->n_subscriptions += n - from->n_subscriptions;
	from->n_subscriptions = n;
	if (n == 0)
		forget_all(publisher, from);
	if ((was > 0) != (publisher->n_subscriptions > 0))
		publisher->on_heard(publisher->user, publisher->n_subscriptions > 0);
}

static bool is_of(const struct heard *heard, const struct publisher_socket *from, const char *topic,
	size_t n_bytes)
{
	return heard->from == from && heard->n_bytes == n_bytes &&
	       memcmp(heard->topic, topic, n_bytes) == 0;
}

static struct heard *find(
	const struct publisher_socket *from, uint64_t connection, const char *topic, size_t n_bytes)
{
	struct heard *heard;

	SLIST_FOREACH(heard, &from->publisher->known, link)
	if (heard->connection == connection && is_of(heard, from, topic, n_bytes))
		break;
	return heard;
}

/* One of them has ended: the oldest is as likely as any. */
static void forget_oldest(struct publisher_socket *from, const char *topic, size_t n_bytes)
{
	struct heard *heard, *oldest = NULL;

	SLIST_FOREACH(heard, &from->publisher->known, link)
	if (heard->connection > 0 && is_of(heard, from, topic, n_bytes))
		oldest = heard;
	if (oldest)
		forget(from->publisher, oldest);
}

static void make_room(struct publisher *publisher)
{
	struct heard *heard, *end = NULL;

	SLIST_FOREACH(heard, &publisher->known, link)
	if (heard->connection == 0)
		end = heard;
	if (!end)
		return;
	forget_oldest(end->from, end->topic, end->n_bytes);
	forget(publisher, end);
}

/* One that there is no room to remember counts until its connection ends. */
static void remember(
	struct publisher_socket *from, uint64_t connection, const char *topic, size_t n_bytes)
{
	struct publisher *publisher = from->publisher;
	struct heard *heard = NULL;

	if (connection > 0 && publisher->n_known == MAX_KNOWN)
		make_room(publisher);
	/* There are never more ends than there are connections for them. */
	if (connection == 0 || publisher->n_known < MAX_KNOWN)
		heard = malloc(sizeof(*heard));
	if (!heard)
		return;
	*heard = (struct heard){ .from = from, .connection = connection, .n_bytes = n_bytes };
	memcpy(heard->topic, topic, n_bytes);
	SLIST_INSERT_HEAD(&publisher->known, heard, link);
	publisher->n_known += connection > 0;
}

/* Where as many connections have ended as had begun, each of them has. */
static void forget_ended(struct publisher_socket *from, const char *topic, size_t n_bytes)
{
	struct publisher *publisher = from->publisher;
	struct heard *heard, *next;
	int n_left = 0;

	SLIST_FOREACH(heard, &publisher->known, link)
	if (is_of(heard, from, topic, n_bytes))
		n_left += heard->connection > 0 ? 1 : -1;
	for (heard = SLIST_FIRST(&publisher->known); heard && n_left <= 0; heard = next) {
		next = SLIST_NEXT(heard, link);
		if (is_of(heard, from, topic, n_bytes))
			forget(publisher, heard);
	}
}

/*
 * libzmq counts what a connection has subscribed to once, and when it ends tells the end of what it
 * had still, without a word of whom. What a peer ends itself may never have begun: that would switch
 * the feed of others off.
 */
static void count(struct publisher_socket *from, bool on, uint64_t connection, const char *topic,
	size_t n_bytes)
{
	uint64_t n = from->n_subscriptions;
	struct heard *heard = connection > 0 ? find(from, connection, topic, n_bytes) : NULL;

	if (on && !heard) {
		if (connection > 0)
			remember(from, connection, topic, n_bytes);
		set_count(from, n + 1);
	} else if (!on && n > 0 && (heard || connection == 0)) {
		if (heard)
			forget(from->publisher, heard);
		else
			remember(from, 0, topic, n_bytes);
		forget_ended(from, topic, n_bytes);
		set_count(from, n - 1);
	}
}

/*
 * libzmq keeps the connections of subscriptions in one queue and all messages in another: after
 * one that is none, the next subscription would be another connection's.
 */
static bool is_subscription(zmq_msg_t *message)
{
	return zmq_msg_size(message) >= 1 && *(const uint8_t *)zmq_msg_data(message) <= 1 &&
	       !zmq_msg_more(message);
}

static void start_over(struct publisher_socket *from, const char *peer)
{
	log_warning("PUB: %s sent what is no subscription: all subscribers connect again",
		*peer ? peer : "somebody");
	if (*peer)
		zap_shun(from->publisher->context->zap, peer);
	bound_remake(from->bound);
	/* Nobody tells their ends. */
	set_count(from, 0);
}

/* A byte that says whether, and the prefix of topics. */
static void take(struct publisher_socket *from, void *socket, zmq_msg_t *message)
{
	struct publisher *publisher = from->publisher;
	const uint8_t *data = zmq_msg_data(message);
	size_t n = zmq_msg_size(message);
	const char *peer = bound_peer(message);
	char prefix[MAX_TOPIC];
	bool on;

	if (n > MAX_TOPIC)
		return;
	on = data[0] == 1;
	memcpy(prefix, data + 1, n - 1);
	prefix[n - 1] = '\0';
	/* Where a connection has ended there is no peer, and libzmq has forgotten it already. */
	if (peers_may(publisher->context->peers, peer, ""))
		subscribe(socket, on, prefix, n - 1);
	else
		narrow(publisher, socket, on, peer, prefix);
	count(from, on, bound_connection(message), prefix, n - 1);
}

static void on_ready(void *user)
{
	struct publisher_socket *from = user;
	void *socket = bound_socket(from->bound);

	for (unsigned i = 0; bound_is_readable(from->bound); i++) {
		zmq_msg_t message;
		int n;

		if (i == BATCH) {
			bound_kick(from->bound);
			return;
		}
		(void)zmq_msg_init(&message);
		n = zmq_msg_recv(&message, socket, ZMQ_DONTWAIT);
		if (n >= 0 && is_subscription(&message))
			take(from, socket, &message);
		else if (n >= 0)
			start_over(from, bound_peer(&message));
		(void)zmq_msg_close(&message);
		if (n < 0 || bound_socket(from->bound) != socket)
			return;
	}
}

static int bind_all(struct publisher *publisher)
{
	const char *at = publisher->context->config->zmq_publish;
	char endpoint[ENDPOINT_CHARS];
	int r = 0;

	while (r >= 0 && endpoint_next(&at, endpoint)) {
		struct publisher_socket *socket = &publisher->sockets[publisher->n_sockets];
		const struct bound_options options = {
			.type = ZMQ_XPUB,
			.endpoint = endpoint,
			.name = "PUB",
			.max_bytes = MAX_BYTES,
			.receive_water = SEND_WATER,
			.send_water = SEND_WATER,
			.flag = ZMQ_XPUB_MANUAL,
			.on_ready = on_ready,
			.user = socket,
		};

		if (publisher->n_sockets == MAX_SOCKETS) {
			log_error("PUB: only %d endpoints are bound", MAX_SOCKETS);
			return 0;
		}
		socket->publisher = publisher;
		publisher->n_sockets++;
		r = bound_new(&socket->bound, publisher->context, &options);
	}
	return r;
}

int publisher_new(struct publisher **ret_publisher, struct zmq_context *context,
	publisher_fn *on_heard, void *user)
{
	struct publisher *publisher;
	int r;

	*ret_publisher = NULL;
	if (!context->config->zmq_publish[0])
		return 0;
	publisher = calloc(1, sizeof(*publisher));
	if (!publisher)
		return -ENOMEM;
	publisher->context = context;
	publisher->on_heard = on_heard;
	publisher->user = user;
	r = bind_all(publisher);
	if (r < 0) {
		publisher_free(publisher);
		return r;
	}
	*ret_publisher = publisher;
	return 0;
}

void publisher_free(struct publisher *publisher)
{
	if (!publisher)
		return;
	for (unsigned i = 0; i < publisher->n_sockets; i++)
		bound_free(publisher->sockets[i].bound);
	forget_all(publisher, NULL);
	free(publisher);
}

void publisher_send(
	struct publisher *publisher, const char *topic, const void *data, size_t n_bytes)
{
	publisher->n_sent++;
	for (unsigned i = 0; i < publisher->n_sockets; i++) {
		struct bound *bound = publisher->sockets[i].bound;
		void *socket = bound_socket(bound);

		if (!socket)
			continue;
		/* Never waits: what a subscriber has no room for is dropped for that one. */
		if (zmq_send(socket, topic, strlen(topic), ZMQ_DONTWAIT | ZMQ_SNDMORE) >= 0)
			(void)zmq_send(socket, data, n_bytes, ZMQ_DONTWAIT);
		if (bound_is_readable(bound))
			bound_kick(bound);
	}
}

uint64_t publisher_n_sent(const struct publisher *publisher)
{
	return publisher ? publisher->n_sent : 0;
}
