/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_INGEST_ZMQ_PULL_H
#define KAMEN_INGEST_ZMQ_PULL_H

#include "ingest/admission.h"

/*
 * A site's ZeroMQ PULL socket: two parts a message, StreamFrame and image. Best effort: nothing is
 * acknowledged, gaps in a sender's numbers are counted. The site is the endpoint's, and its sender's
 * key must be one that speaks for it. While there is no room nothing is received, and the sender's own queue fills.
 */
struct zmq_pull;

/** Binds, now or, where the endpoint is in use, as soon as it is free. */
int zmq_pull_new(struct zmq_pull **ret_pull, struct ingest *ingest, struct ingest_site *site);
void zmq_pull_free(struct zmq_pull *pull);
/** What comes from now on is for another site with the same endpoint. */
void zmq_pull_set_site(struct zmq_pull *pull, struct ingest_site *site);

/** Receives what there is room for. */
void zmq_pull_pump(struct zmq_pull *pull);

#endif
