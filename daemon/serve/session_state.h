/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_SESSION_STATE_H
#define KAMEN_SERVE_SESSION_STATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "shm_layout.h"

/*
 * What the next serve has to know of a session, in a memfd that no client ever sees. It is written
 * as the session lives, by plain stores: whoever is killed between two of them leaves what he had
 * stored up to there, in the order of the program. Each slot's mark is one word:
 *
 *   FREE        nothing is owed
 *   TAKEN n     submission n, of those ever taken, is copied here and has no answer: run it again
 *   ANSWERED n  its result is whole and is completion n, of those ever written: it is published once
 *               completion_head, which only the daemon can write, has come so far
 *
 * A client of feature RESUME has one; the others' sessions end with their serve.
 */
#define SESSION_STATE_MAGIC UINT64_C(0x3173734e454d414b)
#define SESSION_STATE_VERSION 1u
#define SESSION_STATE_MOST_RUNS 3u /* of a request: each may have been the end of a serve */

enum session_mark { SESSION_FREE, SESSION_TAKEN, SESSION_ANSWERED };

struct session_state_slot {
	_Atomic uint64_t mark; /* enum session_mark in the upper half, n in the lower */
	uint64_t received_ns;
	struct shm_request request; /* the checked copy; reserved[0]: how often it was run again */
};

struct session_state {
	uint64_t magic;
	uint32_t version, n_slots;
	uint64_t slot_bytes;
	_Atomic uint32_t generation; /* of the results region in force */
	_Atomic uint32_t n_taken;    /* submissions; a slot may be one ahead */
	uint32_t is_stored;          /* systemd has its descriptors */
	uint8_t reserved[28];
	struct session_state_slot slots[SHM_MAX_SLOTS];
};

_Static_assert(sizeof(struct session_state_slot) == 224, "layout 1");
_Static_assert(offsetof(struct session_state, slots) == 64, "layout 1");
_Static_assert(sizeof(struct session_state) == 64 + 64 * 224, "layout 1");

/** A new one, mapped. Both are the caller's. */
int session_state_make(
	struct session_state **ret_state, int *ret_fd, uint32_t n_slots, uint64_t slot_bytes);
/** One of an earlier process. -EBADMSG: not such a thing, or of another layout. */
int session_state_map(struct session_state **ret_state, int fd);
/** NULL is fine. */
void session_state_unmap(struct session_state *state);

/**
 * Counts that what a slot owes is run again, after a crash that it may have been the reason of.
 * False: it was run often enough, and is to be answered with an error.
 */
bool session_state_try(struct session_state *state, uint32_t slot);
/** The submission that makes it n_taken of them, before anybody is told that it was taken. */
void session_state_take(struct session_state *state, const struct shm_request *request,
	uint64_t received_ns, uint32_t n_taken);
/** The slot's result and its completion, which makes it n_answered, are written, not published. */
void session_state_answer(struct session_state *state, uint32_t slot, uint32_t n_answered);
/** That is published. */
void session_state_free(struct session_state *state, uint32_t slot);

/** Where a session goes on. */
struct session_recovery {
	uint32_t n_taken, n_answered;  /* both cursors of the daemon */
	uint32_t n;                    /* slots without an answer */
	uint32_t slots[SHM_MAX_SLOTS]; /* (n), in the order in which they were taken */
};

/**
 * @param completion_head  that the results region has
 * @return 0, or -EBADMSG: no serve has ever left it so
 */
int session_state_recover(const struct session_state *state, uint32_t completion_head,
	struct session_recovery *ret_recovery);
/** Puts down that the session goes on there, in a results region of this generation. */
void session_state_resume(
	struct session_state *state, const struct session_recovery *recovery, uint32_t generation);

#endif
