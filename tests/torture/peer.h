/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_TORTURE_PEER_H
#define KAMEN_TORTURE_PEER_H

#include <stdio.h>

#include "shm_ring.h"
#include "shm_layout.h"
#include "wire.h"

/**
 * A client of data.sock by the letter of kamen-protocol(7), without libkamen's manners: everything
 * that it writes is up to the caller.
 */
struct peer {
	int sock, results_fd, frames_fd, bell;
	uint8_t *results, *frames;
	size_t results_bytes, frames_bytes;
	uint32_t n_slots;
	uint64_t slot_bytes, next_id, busy; /* busy: a bit for each slot in flight */
	uint32_t head, seen;
	bool needs_bells; /* waits for them alone: one that does not come is seen */
};

/** Connects only. A descriptor or a negative errno. */
int peer_connect(const char *path);
/** Says hello and maps. 0, what the daemon refused with, -ENOTCONN: it hung up, -ETIMEDOUT */
int peer_open(struct peer *peer, struct wire *wire, const char *path, uint32_t n_slots,
	uint64_t slot_bytes, int timeout_ms);
void peer_close(struct peer *peer);
static inline bool peer_is_open(const struct peer *peer)
{
	return peer->sock >= 0;
}

uint8_t *peer_slot(const struct peer *peer, uint32_t slot);
struct shm_request *peer_entry(const struct peer *peer, uint32_t cursor);
_Atomic uint32_t *peer_head(const struct peer *peer);
/** As far as it fits. */
static inline void peer_name_site(struct shm_request *request, const char *site)
{
	(void)snprintf(request->site, sizeof(request->site), "%s", site);
}
/** Writes the next entry of the ring; request->id is set. */
void peer_put(struct peer *peer, struct shm_request *request);
void peer_publish(struct peer *peer);
void peer_ring(const struct peer *peer);
/** All three. */
void peer_submit(struct peer *peer, struct shm_request *request);
/** A slot that is not in flight, or -1. */
int peer_free_slot(const struct peer *peer);
/**
 * The next answer; the result may be read until its slot is submitted again.
 * @return 1, 0: none in time, -ENOTCONN: the daemon hung up
 */
int peer_wait(struct peer *peer, int timeout_ms, const struct shm_result **ret_result);
/** Takes every answer that is there without waiting. Returns how many, or -ENOTCONN. */
int peer_drain(struct peer *peer);

#endif
