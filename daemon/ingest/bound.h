/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_INGEST_BOUND_H
#define KAMEN_INGEST_BOUND_H

#include "ingest/zmq_context.h"

/**
 * A ZeroMQ socket that is bound to one endpoint, now or as soon as that is free, with all that
 * holds for every one of ours: limits, heartbeats, no lingering, CURVE or a rule for who may
 * connect. Without a bound one nothing arrives.
 */
struct bound;

typedef void bound_fn(void *user);

struct bound_options {
	int type;             /* ZMQ_PULL, ... */
	const char *endpoint; /* copied */
	const char *name;     /* for the log; copied */
	uint64_t max_bytes;   /* of a part that arrives: libzmq ends the connection at more */
	int receive_water;    /* messages of one peer that wait in libzmq */
	int send_water;
	int linger_ms;      /* what was sent may still go for so long after the end */
	int flag;           /* one more option to be set to 1; 0: none */
	bound_fn *on_ready; /* something may have changed: ask bound_events() */
	void (*on_failure)(void *user, const char *reason); /* told once; may be NULL */
	void *user;
};

int bound_new(
	struct bound **ret_bound, struct zmq_context *context, const struct bound_options *options);
void bound_free(struct bound *bound);
/** Ends every connection and binds anew, soon: who connected comes again by itself. */
void bound_remake(struct bound *bound);

/** NULL while the endpoint is not free. */
void *bound_socket(const struct bound *bound);
/** Whether something can be received. The descriptor rings once only: ask after every call. */
bool bound_is_readable(const struct bound *bound);
/** Calls on_ready again once others had their turn. */
void bound_kick(struct bound *bound);

/** Who sent it, as ZAP has said (peers.h); "" cannot happen. */
const char *bound_peer(void *message);
/** Over which connection: a number that no other ever has. 0: libzmq's own message. */
uint64_t bound_connection(void *message);

#endif
