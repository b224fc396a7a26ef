/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_SPIN_H
#define KAMEN_SERVE_SPIN_H

#include <stdbool.h>
#include <stdint.h>

struct serve;
struct session;

#define SPIN_MAX_SESSIONS 16u

/**
 * Which sessions' cursors the loop looks at instead of sleeping: those that it dealt with last, for
 * [serve] spin_us after the latest submission or answer of any, and only while nothing else is to
 * be done: no request waits or is computed, and there is a CPU for somebody else. Their clients
 * need not ring meanwhile (shm_ring.h). Nothing but submissions and their answers makes it longer:
 * a client that submits nothing cannot hold it.
 */
struct spin {
	struct session *sessions[SPIN_MAX_SESSIONS];
	uint32_t n, next; /* whose turn it is to be looked at first */
	bool may;         /* there is a CPU for somebody else */
	uint64_t until_ns;
};

/** The loop itself: sd_event_loop() with looks between its sleeps. */
int spin_loop(struct serve *serve);
/**
 * Who has submitted something, or lies about it, and does not wait for its turn already: the next
 * one after the last. NULL: none. Their clients do not ring: nobody may be passed over.
 */
struct session *spin_ready(struct spin *spin);
/** A session has submitted or was answered. */
void spin_touch(struct session *session);
/** It goes. */
void spin_forget(struct session *session);

#endif
