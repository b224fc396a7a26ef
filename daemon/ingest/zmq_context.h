/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_INGEST_ZMQ_CONTEXT_H
#define KAMEN_INGEST_ZMQ_CONTEXT_H

#include <systemd/sd-event.h>

#include "ingest/peers.h"
#include "ops/config.h"

struct zap;

/** libzmq's context with its authenticator: who may connect, and for which sites. */
struct zmq_context {
	sd_event *event;
	const struct config *config;
	void *zmq; /* NULL: nothing has been bound yet, and no thread started */
	struct zap *zap;
	struct peers *peers;
	char secret_key[41]; /* "": no CURVE */
};

/** Reads the key and the list; no thread is started yet. */
int zmq_context_init(struct zmq_context *context, sd_event *event, const struct config *config);
/** Sockets have been closed before. */
void zmq_context_done(struct zmq_context *context);
/** libzmq and the authenticator, when the first socket is to be made. */
int zmq_context_start(struct zmq_context *context);
/** The list again; the old one stays where the new one is wrong, and the log says so. */
void zmq_context_reload(struct zmq_context *context);

#endif
