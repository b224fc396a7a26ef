/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_INGEST_ASKERS_H
#define KAMEN_INGEST_ASKERS_H

#include <sys/queue.h>
#include <zmq.h>

#include "ingest/ask.h"
#include "ingest/peers.h"

/*
 * Who asks, and what of it waits: a party is a peer with all of its connections, an asker one of
 * these. Both are there while something of theirs waits or is with serve. Parties take turns, and
 * so do the askers of each; what each of them may have waiting is bounded.
 */
#define ASKER_ADDRESS_BYTES 5u /* that libzmq itself gives a connection */

struct router_socket;

struct party {
	TAILQ_ENTRY(party) link;
	char name[PEER_CHARS];
	TAILQ_HEAD(, asker) askers;
	unsigned n_waiting, n_flying;
	uint64_t n_bytes;
};

struct asker {
	TAILQ_ENTRY(asker) link;
	struct askers *all;
	struct party *party;
	struct router_socket *socket;
	uint8_t address[ASKER_ADDRESS_BYTES];
	TAILQ_HEAD(, asked) waiting;
	unsigned n_waiting, n_flying;
	uint64_t n_bytes; /* of what waits */
	bool is_gone;     /* nobody reads answers any more */
};

/** A request: its asker's while it waits, then the token of what is with serve. */
struct asked {
	TAILQ_ENTRY(asked) link;
	struct asker *asker;
	struct ask ask;
	uint64_t deadline_ns; /* 0: none */
	zmq_msg_t pixels;
};

struct askers {
	TAILQ_HEAD(, party) parties;
	unsigned n_waiting;
	uint64_t n_bytes;
};

void askers_init(struct askers *askers);
/** The connection of this address, made if need be; NULL: no memory. */
struct asker *askers_get(struct askers *askers, struct router_socket *socket,
	const struct ask_part *address, const char *peer);
/** Frees one that has nothing left. */
void asker_put(struct asker *asker);
/** Whose turn it is, of those with less than share with serve; NULL: nobody's. */
struct asker *askers_next(const struct askers *askers, unsigned share);
/** To the end of both lines. */
void asker_had_turn(struct asker *asker);
/** Of all that waits; UINT64_MAX: none has one. */
uint64_t askers_deadline(const struct askers *askers);

/** Takes the pixels over. 0, -EBUSY: no room, -ENOMEM. */
int asker_add(struct asker *asker, const struct ask *ask, uint64_t deadline_ns, zmq_msg_t *pixels);
/** Takes it out of its queue; the caller's from then on. */
void asked_take(struct asked *asked);
void asked_free(struct asked *asked);
/** Nobody can read what is still waiting, so nobody computes it. */
void asker_gone(struct asker *asker);

#endif
