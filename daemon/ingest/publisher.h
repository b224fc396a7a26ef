/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_INGEST_PUBLISHER_H
#define KAMEN_INGEST_PUBLISHER_H

#include "ingest/zmq_context.h"

/*
 * Results and events for whoever subscribes. The sockets are XPUB with manual subscriptions, for
 * two reasons: serve is asked for news only while somebody listens, and a peer that may speak for
 * some sites alone hears of these alone, whatever it subscribes to. Who does not read loses what
 * is beyond libzmq's queue, and sees it by the sequence.
 */
struct publisher;

typedef void publisher_fn(void *user, bool is_heard);

/** Binds every endpoint of the configuration; *ret_publisher is NULL where there is none. */
int publisher_new(struct publisher **ret_publisher, struct zmq_context *context,
	publisher_fn *on_heard, void *user);
void publisher_free(struct publisher *publisher);

void publisher_send(
	struct publisher *publisher, const char *topic, const void *data, size_t n_bytes);
uint64_t publisher_n_sent(const struct publisher *publisher);

#endif
