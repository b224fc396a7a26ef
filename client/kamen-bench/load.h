/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_BENCH_LOAD_H
#define KAMEN_BENCH_LOAD_H

#include <stdint.h>

#include "bench.h"

#define LOAD_MAX_SITES 1024u
#define LOAD_MAX_CLIENTS 64u
#define LOAD_MAX_DEPTH 64u

struct transport;

/** What the clients do: each one is a thread with a connection of its own. */
struct load {
	const struct transport *transport;
	const char *endpoint; /* of the transport */
	const char *data_socket;
	char (*sites)[64];  /* (n_sites) */
	uint32_t *versions; /* (n_sites) of their masks; NULL: their champions */
	uint32_t n_clients, n_sites, px;
	uint32_t depth;       /* requests of a client in flight; of a rate: at most */
	double zipf;          /* exponent of the choice of the site; 0: all alike */
	double rate;          /* requests a second of all clients together; 0: as answered */
	uint64_t deadline_ns; /* after a request was due; 0: none */
	double seconds;       /* of which the first tenth is not measured */
	uint64_t seed;
	bool learner; /* a round runs meanwhile, on the first site */
};

struct load_result {
	uint64_t completed; /* answered with code 0 */
	uint64_t refused;   /* answered with an error or NO_VERDICT by deadline */
	uint64_t lost;      /* never answered */
	uint64_t doubled;   /* answered again */
	uint64_t wrong; /* answers that do not echo their requests, or refusals without a reason */
	double seconds;
	struct samples ms;       /* of the completed, end to end from when they were due */
	struct samples overhead; /* of the same, from the submission, minus compute */
	struct samples compute;  /* of the same, ms */
	struct samples late_ms;  /* of all answers, after their deadline; before: negative */
	struct samples *of_site; /* (n_sites) ms */
	uint32_t n_sites;
	char why[160]; /* of the first that was refused or lost */
};

/** Pushes n images to a site. @return 0 or a negative errno */
int load_feed(const struct load *load, uint32_t site, unsigned n);
/** Adds to result, which was zeroed or is of an earlier run over as many sites.
 * @return 0 or a negative errno: a client could not connect; result is to be freed anyway */
int load_run(const struct load *load, struct load_result *result);
int load_result_new(struct load_result *ret_result, uint32_t n_sites);
/** Adds what from has, which is left empty. @return 0 or -ENOMEM */
int load_result_take(struct load_result *result, struct load_result *from);
void load_result_done(struct load_result *result);

#endif
