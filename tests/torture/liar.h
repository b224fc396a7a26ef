/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_TORTURE_LIAR_H
#define KAMEN_TORTURE_LIAR_H

#include "peer.h"
#include "world.h"

struct fault;

/** One process that breaks the rules. Its session is used for many faults, while it lives. */
struct liar {
	struct world *world;
	unsigned number;
	uint64_t random; /* of this fault alone */
	uint64_t fault;  /* its number */
	const struct fault *kind;
	struct wire *wire;
	struct peer peer;
	uint8_t *scratch; /* (LIAR_SCRATCH), of noise */
};
#define LIAR_SCRATCH (1u << 17)

/** A kind of fault; run() ends with whatever session it likes, open or not. */
struct fault {
	const char *name;
	unsigned weight;
	void (*run)(struct liar *liar);
};

/* Each ends with a row without a name. */
extern const struct fault region_faults[], ring_faults[], request_faults[], socket_faults[],
	control_faults[];

/** Fault kinds by number, NULL: no more. */
const struct fault *liar_fault(unsigned number);

uint64_t liar_random(struct liar *liar);
uint64_t liar_below(struct liar *liar, uint64_t n);
void liar_noise(struct liar *liar, void *to, size_t n_bytes);
/** An open session, this one's or a new one; NULL: the daemon has refused it. */
struct peer *liar_peer(struct liar *liar);
/** A slot that is free once what was asked is answered, or -1: the session is over. */
int liar_slot(struct liar *liar);
/** Until everything in flight is answered or the session has ended: one of them has to happen. */
void liar_settle(struct liar *liar);
/** A request that is right, as far as this says. */
struct shm_request liar_request(struct liar *liar, uint32_t verb, int slot, uint64_t n_bytes);
/** Runs in a child of its own, which then dies by SIGKILL. */
void liar_die(struct liar *liar, void (*run)(struct liar *liar));
/** What the daemon must never have allowed. */
void liar_breach(struct liar *liar, const char *what);
/** Whatever is left to send, without waiting. */
void liar_send(int sock, const void *data, size_t n_bytes, const int *fds, unsigned n_fds);

#endif
