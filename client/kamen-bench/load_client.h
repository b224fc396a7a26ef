/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_BENCH_LOAD_CLIENT_H
#define KAMEN_BENCH_LOAD_CLIENT_H

#include "base/rng.h"
#include "transport.h"

/** A request between its submission and its answer. */
struct flight {
	bool is_up;
	uint64_t id, number;
	uint64_t due_ns, sent_ns;
	uint32_t site;
};

/** One client, on a thread of its own. */
struct load_client {
	const struct load *load;
	uint32_t index;
	void *connection; /* of load->transport */
	struct rng rng;
	double cdf[LOAD_MAX_SITES];
	struct flight flights[LOAD_MAX_DEPTH]; /* by their places */
	uint32_t n_up;
	uint64_t n_sent;
	uint64_t measured_from_ns; /* what was due earlier is warm-up */
	struct load_result result;
};

/** Asks its share of the sites once, unmeasured: plans and slots are made at the first request. */
int load_client_warm_up(struct load_client *c);
/** The whole load, until every answer has come.
 * @param begin  on bench_now_ns()'s clock, the same for all clients
 * @return 0 or a negative errno */
int load_client_work(struct load_client *c, uint64_t begin);

#endif
