/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_SESSION_H
#define KAMEN_SERVE_SESSION_H

#include <systemd/sd-event.h>

#include "serve/peer.h"
#include "serve/quota.h"
#include "serve/request.h"
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
};

/** Makes both regions and the doorbell, maps, then seals. Closes nothing of a half-made one: call
 * session_shm_done() in any case. */
int session_shm_make(struct session_shm *shm, uint32_t n_slots, uint64_t slot_bytes);
void session_shm_done(struct session_shm *shm);
/** Next submission copied out. 1, 0: none, -EBADMSG: the client's cursor is a lie. */
int session_shm_take(struct session_shm *shm, struct shm_request *ret_request);
/** How far we have read. */
void session_shm_taken(struct session_shm *shm);
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
	sd_event_source *io, *doorbell, *hello, *more;
	struct session_shm shm;
	struct request
		*requests; /* (n_requests), two a slot: a late forward still holds the first */
	uint32_t n_requests;
	struct request *free;
	uint32_t n_busy;                        /* requests that are not free */
	struct request *in_slot[SHM_MAX_SLOTS]; /* what is to be answered there */
	uint64_t n_bytes;                       /* of its regions */
	bool is_open;                           /* counts for its user */
	bool said_hello, closed;
	int refusal; /* told in answer to its hello: a packet sent earlier may find no reader */
	struct session *next, *previous;
};

struct session_list {
	struct session *head;
	uint32_t n, n_welcome; /* connected; of these, with a session */
	uint64_t n_bytes;      /* of all regions */
	int listen_fd;
	sd_event_source *listen, *listen_pause;
	uint64_t n_accepted, n_refused, n_dropped;
};

int sessions_open(struct serve *serve, const char *path);
/** No new clients; what was submitted before is taken. */
void sessions_stop(struct serve *serve);
void sessions_close(struct serve *serve);

/** Takes what it has submitted, as its doorbell does. It may be gone afterwards. */
void session_look(struct session *session);
/** Writes an answer to the client's slot and rings. */
void session_answer(
	struct session *session, const struct request *request, const struct answer *answer);
/** Gives a request back to its session; frees a closed session with its last one. */
void session_put(struct session *session, struct request *request);
/** Ends a session for a reason that is logged; its requests come to nothing. */
void session_drop(struct session *session, const char *reason);

#endif
