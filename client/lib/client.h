/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_CLIENT_H
#define KAMEN_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kamen/kamen.h"
#include "shm_layout.h"
#include "shm_ring.h"

/*
 * A slot's life, as the caller sees it. Beside it, `owed` says that the daemon may still read the
 * frame and write the result: a slot is only handed out again when nobody owes anything.
 *
 *   FREE -> ACQUIRED -> IN_FLIGHT -> READY -> TAKEN -> FREE
 *
 * READY comes from the daemon's completion, or from the deadline with `owed` left standing.
 */
enum slot_state { SLOT_FREE, SLOT_ACQUIRED, SLOT_IN_FLIGHT, SLOT_READY, SLOT_TAKEN };

struct slot {
	enum slot_state state;
	bool owed;
	bool late; /* answered here, at the deadline */
	uint64_t id;
	uint64_t deadline_ns;                              /* 0: none */
	uint64_t trigger_id, part_id, capture_us, encoder; /* for an answer of our own */
	char label[SHM_LABEL_CHARS];                       /* copies that do end with NUL */
	char reason[SHM_REASON_CHARS];
};

struct kamen_client {
	int sock, doorbell;
	bool gone;     /* the daemon has closed or broken its word */
	bool may_spin; /* more than one processor */
	uint32_t n_slots;
	uint64_t slot_bytes, next_id;
	const struct shm_results_header *results; /* read-only mapping */
	struct shm_frames_header *frames;
	size_t results_bytes, frames_bytes;
	struct shm_ring submissions, completions;
	struct slot slots[SHM_MAX_SLOTS];
	uint32_t ready[SHM_MAX_SLOTS]; /* slots in the order of their answers */
	uint32_t ready_head, n_ready;
};

/** Says hello and maps the two regions that the daemon passes. */
int session_open(struct kamen_client *client, uint32_t n_slots, uint64_t slot_bytes);
void session_close(struct kamen_client *client);

#endif
