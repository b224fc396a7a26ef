/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_INGEST_ROUTER_H
#define KAMEN_INGEST_ROUTER_H

#include "ingest/zmq_context.h"
#include "wire.h"

/*
 * Requests over ZeroMQ ROUTER sockets: the same as those of data.sock. What cannot be handed to
 * serve at once waits, peer by peer, and peers take turns; who asks faster than that is told -EBUSY.
 * Every request is answered, at its deadline at the latest, unless its peer is gone or does not
 * read.
 */
struct router;

/** Since start. */
struct router_counts {
	uint64_t n_requests, n_malformed, n_denied, n_busy, n_dropped;
};

/** Binds every endpoint of the configuration; *ret_router is NULL where there is none. */
int router_new(struct router **ret_router, struct zmq_context *context);
void router_free(struct router *router);
struct router_counts router_counts(const struct router *router);

#endif
