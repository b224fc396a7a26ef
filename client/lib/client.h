/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_CLIENT_H
#define KAMEN_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/un.h>

#include "kamen/kamen.h"
#include "region.h"
#include "shm_layout.h"
#include "shm_ring.h"

/*
 * A slot's life, as the caller sees it. Beside it, `owed` says that the daemon may still read the
 * frame and write the result: a slot is only handed out again when nobody owes anything.
 *
 *   FREE -> ACQUIRED -> IN_FLIGHT -> READY -> TAKEN -> FREE
 *
 * READY comes from the daemon's completion, or from us: at the deadline with `owed` left standing,
 * or when the daemon is gone for good. What is IN_FLIGHT when the daemon goes is sent to the next.
 */
enum slot_state { SLOT_FREE, SLOT_ACQUIRED, SLOT_IN_FLIGHT, SLOT_READY, SLOT_TAKEN };

struct slot {
	enum slot_state state;
	bool owed;
	uint32_t n_sent;                 /* to how many daemons */
	int own_code;                    /* answered by us: a negative errno, and why */
	const char *own_reason;          /* static */
	struct region *frames, *results; /* where frame and answer lie, held until it is free */
	struct shm_request entry;        /* to send again, and for an answer of our own */
	char label[SHM_LABEL_CHARS];     /* copies that do end with NUL */
	char reason[SHM_REASON_CHARS];
};

/*
 * WAITING until the next attempt to connect, HELLO until the daemon has answered ours; ENDED is for
 * good, with client->error.
 */
enum link_state { LINK_UP, LINK_WAITING, LINK_HELLO, LINK_ENDED };

struct kamen_client {
	struct sockaddr_un address;
	struct wire *wire;
	int epoll;          /* watches sock, whichever that is: what the caller polls */
	int sock, doorbell; /* of this session, or of one that begins */
	uint64_t spin_ns;   /* how long kamen_wait() looks before it sleeps; 0: not at all */
	bool is_given_up;   /* the daemon has been gone for reconnect_ns */
	bool may_reconnect;
	enum link_state link;
	int error;
	uint64_t reconnect_ns, lost_ns, pause_ns;
	uint64_t step_ns; /* WAITING: connect then; HELLO: no answer will come any more */
	uint32_t n_slots; /* the caller's; a later session may have more, and larger ones */
	uint64_t slot_bytes, next_id;
	struct region *results, *frames;
	uint64_t generation; /* of results */
	struct shm_ring submissions, completions;
	uint32_t n_taken;   /* answers of this session */
	uint32_t n_unheard; /* answers taken without a look at the bells */
	struct slot slots[SHM_MAX_SLOTS];
	uint32_t ready[SHM_MAX_SLOTS]; /* slots in the order of their answers */
	uint32_t ready_head, n_ready;
};

/* ---- session.c: one connection, from connect() to hang-up */

/**
 * Connects and says hello: never waits, or only for connect() and not for ever.
 *
 * @return 0, or what socket() or connect() said; -ECONNREFUSED: it hung up at once
 */
int session_begin(struct kamen_client *client, bool may_wait);
/**
 * Takes the Welcome and the new regions; on failure the ones of before are still there.
 *
 * @return 0, -EAGAIN: it is not there yet, -ECONNREFUSED: the daemon hung up, -EMSGSIZE: fewer or
 *         smaller slots than before, or the daemon's refusal
 */
int session_finish(struct kamen_client *client);
/** The regions stay: for what the caller holds, and for what is in flight. */
void session_hang_up(struct kamen_client *client);

/* ---- bell.c: what comes on the socket after the Welcome */

/** @return 0, -ENOTCONN: the daemon has closed, -EPROTO: it makes no sense, or -ENOMEM */
int bell_drain(struct kamen_client *client);

/* ---- link.c: a daemon that goes, and another one that comes */

/** The session is over; the next one is looked for. */
void link_lose(struct kamen_client *client);
/** No further session: whatever is in flight is answered here. */
void link_end(struct kamen_client *client, int error);
/** The next step, if it is time. */
void link_process(struct kamen_client *client);
/** When that is; UINT64_MAX: no matter. */
uint64_t link_timeout(const struct kamen_client *client);
/** What calls fail with, 0: they need not. */
int link_error(const struct kamen_client *client);

/* ---- submit.c */

/** Sends what is in flight in that slot to this session's daemon; submit_publish() says so. */
int submit_entry(struct kamen_client *client, uint32_t slot);
void submit_publish(struct kamen_client *client);
/** Nobody has the slot any more. */
void slot_free(struct slot *slot);

/* ---- result.c */

/** @return 0, or -EPROTO: the daemon's cursor is a lie */
int completions_take(struct kamen_client *client);
/** An answer of our own. */
void answer_here(struct kamen_client *client, uint32_t slot, int code, const char *reason);

#endif
