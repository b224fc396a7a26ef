/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_FEED_H
#define KAMEN_SERVE_FEED_H

#include <stdbool.h>
#include <stdint.h>

#include "kamen.pb-c.h"

struct answer;
struct request;
struct serve;
struct site;

/*
 * What ingest publishes: results and events of the sites, handed to it while somebody listens. Now
 * or never: nothing of it is queued, and where ingest does not keep up it is dropped. The number
 * that it would have had is then missing from its topic.
 */

/** What ingest counts about ZeroMQ, over all its lives. */
enum zmq_count {
	ZMQ_REQUESTS,
	ZMQ_MALFORMED,
	ZMQ_DENIED,
	ZMQ_BUSY,
	ZMQ_DROPPED,
	ZMQ_PUBLISHED,
	N_ZMQ_COUNTS
};

struct feed {
	bool on;
	uint64_t since_us; /* sequences of this life; 0: none has begun */
	uint64_t audit;    /* the last row that was told */
	uint64_t n_dropped;
	uint64_t before[N_ZMQ_COUNTS], now[N_ZMQ_COUNTS]; /* of earlier ingests, of this one */
};

/** Numbers of a site's next publications. */
struct feed_numbers {
	uint64_t results, events;
};

void feed_set(struct serve *serve, bool on);
/** Nobody is there to hand anything to. */
void feed_lost(struct serve *serve);
void feed_counts(struct serve *serve, const Kamen__ZmqCounts *counts);

/** An answer on its way to its client. Allocates nothing. */
void feed_result(struct serve *serve, const struct request *request, const struct answer *answer);
/** Rows of the audit that are new. */
void feed_audit(struct serve *serve);
/** What has no row there. */
void feed_event(struct serve *serve, struct site *site, const char *what, const char *detail);

#endif
