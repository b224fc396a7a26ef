/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_SESSION_H
#define KAMEN_SERVE_SESSION_H

#include <systemd/sd-event.h>

#include "ops/hand.h"
#include "serve/peer.h"
#include "serve/quota.h"
#include "serve/request.h"
#include "serve/session_state.h"
#include "shm_ring.h"

struct serve;

/** The two regions of a session as the daemon maps them (shm_layout.h). */
struct session_shm {
	int results_fd, frames_fd, doorbell;
	uint8_t *results;      /* read-write */
	const uint8_t *frames; /* read-only */
	size_t results_bytes, frames_bytes;
	uint32_t n_slots;
	uint64_t slot_bytes;
	struct shm_ring submissions, completions;
	struct session_state *state; /* for the next serve; NULL: the session ends with this one */
	int state_fd;
};

#define SESSION_SHM_NONE \
	((struct session_shm){ .results_fd = -1, .frames_fd = -1, .doorbell = -1, .state_fd = -1 })

/** Makes both regions and the doorbell, maps, then seals. Closes nothing of a half-made one: call
 * session_shm_done() in any case. */
int session_shm_make(struct session_shm *shm, uint32_t n_slots, uint64_t slot_bytes);
/** It is to outlive this process: what happens from now on is put down. Keeps the descriptors. */
int session_shm_keep(struct session_shm *shm);
/** It is not: closes the regions' descriptors, which the client has. */
void session_shm_private(struct session_shm *shm);
/**
 * Makes one of what an earlier process has left: frames_fd, doorbell, state_fd and state are set.
 * The results are a new region, because no process can map the old one for writing; it begins as a
 * copy, and the cursors go on. Nothing that was left is changed.
 *
 * @return 0, -EBADMSG: the parts do not fit each other, or are not as a serve leaves them, ...
 */
int session_shm_resume(
	struct session_shm *shm, int old_results_fd, struct session_recovery *ret_recovery);
void session_shm_done(struct session_shm *shm);
/** A part of that, where it would take long. True: there is more; call session_shm_done() at the end. */
bool session_shm_done_part(struct session_shm *shm);
/** Next submission copied out. 1, 0: none, -EBADMSG: the client's cursor is a lie. */
int session_shm_take(struct session_shm *shm, struct shm_request *ret_request);
/** How far we have read: the checked copy is put down, then the client learns that there is room. */
void session_shm_taken(
	struct session_shm *shm, const struct shm_request *request, uint64_t received_ns);
const uint8_t *session_shm_slot(const struct session_shm *shm, uint32_t slot);
/** Where the answer of a slot goes. */
struct shm_result *session_shm_result(const struct session_shm *shm, uint32_t slot);
/** @return whether the client has to be rung for: it may be looking */
bool session_shm_complete(struct session_shm *shm, uint32_t slot, uint64_t id);
/** Whether session_shm_take() has something to say. */
bool session_shm_waits(const struct session_shm *shm);
/** From begin to end the client need not ring; look once more after the end. */
void session_shm_look_begin(struct session_shm *shm);
void session_shm_look_end(struct session_shm *shm);

/** A client on data.sock. Freed when its socket has closed and nobody holds a request of it. */
struct session {
	struct serve *serve;
	struct peer peer;
	struct quota_user *user; /* counts for this; NULL: for nobody */
	int fd;
	sd_event_source *io, *doorbell, *hello; /* hello: its time, or that it is late */
	struct session_shm shm;
	/* (n_requests), so many a slot: each worker may still hold one in a late forward */
	struct request *requests;
	uint32_t n_requests;
	float *values; /* (n_requests, SHM_MAX_VALUES), of which most are never touched */
	struct request *free;
	uint32_t n_busy;                        /* requests that are not free */
	struct request *in_slot[SHM_MAX_SLOTS]; /* what is to be answered there */
	uint64_t n_bytes;                       /* of its regions */
	bool is_open;                           /* counts for its user */
	bool said_hello, closed;
	struct later_item turn;          /* it has more: session_comes_back() */
	uint32_t n_stored;               /* parts that systemd's store has (session_resume.c) */
	bool waits_for_store, has_asked; /* for the others; whether it has submitted anything */
	uint64_t since_ns;               /* that it waits */
	bool owes_word;                  /* that it was resumed: its socket was full */
	uint64_t number; /* of what outlives this process (session_resume.h), 0: it does not */
	struct errand leaving; /* its memory, which goes last, so many bytes */
	uint64_t n_leaving;
	uint64_t opens_ns; /* when its hello is heard, 0: it has said none */
	int refusal; /* told in answer to its hello: a packet sent earlier may find no reader */
	struct session *next, *previous;
};

struct session_list {
	struct session *head;
	uint32_t n, n_welcome; /* connected; of these, with a session */
	uint64_t n_bytes;      /* of all regions */
	uint64_t n_leaving;    /* of sessions that have ended and are given back */
	int listen_fd;
	sd_event_source *listen, *listen_pause;
	uint64_t n_accepted, n_refused, n_dropped, n_flood;
	sd_event_source *store;
	uint64_t store_full_ns;
	uint64_t last_number, n_resumed, n_run_again, gap_ns;
};

int sessions_open(struct serve *serve, const char *path);
/** No new clients; what was submitted before is taken. */
void sessions_stop(struct serve *serve);
void sessions_close(struct serve *serve);
/** Takes nothing from anybody, or goes on where that stopped. */
void sessions_pause(struct serve *serve, bool is_paused);

/** Takes what it has submitted, as its doorbell does. It may be gone afterwards.
 * @return false: not now, it comes back by itself */
bool session_look(struct session *session);
/** Takes it whatever its share of the loop, when its turn comes (later.h). */
void session_comes_back(struct session *session);
/** Writes an answer to the client's slot and rings. */
void session_answer(
	struct session *session, const struct request *request, const struct answer *answer);
/** Gives a request back to its session; frees a closed session with its last one. */
void session_put(struct session *session, struct request *request);
/** The last of a session that nobody holds: its memory, its place among its user's, itself. */
void session_leave(struct session *session);
/** Ends a session for a reason that is logged; its requests come to nothing. */
void session_drop(struct session *session, const char *reason);

/** One that an earlier process has welcomed; owns socket and shm from then on. */
int session_adopt(struct session **ret_session, struct serve *serve, int fd,
	const struct peer *peer, struct session_shm *shm);
/** Starts what was taken and has no answer, then takes what was submitted meanwhile. */
void session_run_again(struct session *session, const struct session_recovery *recovery);

#endif
