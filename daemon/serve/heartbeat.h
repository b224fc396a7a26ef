/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_HEARTBEAT_H
#define KAMEN_SERVE_HEARTBEAT_H

#include <stdbool.h>
#include <stdint.h>

/** Whether a thread that counts what it begins and ends still moves. A plain value, zeroed at first. */
struct heartbeat {
	uint64_t seen_begun;
};

/** False when what runs now ran already at the last look; who has nothing to do moves. */
static inline bool heartbeat_moves(struct heartbeat *heartbeat, uint64_t n_begun, uint64_t n_ended)
{
	bool is_stuck = n_begun > n_ended && n_begun == heartbeat->seen_begun;

	heartbeat->seen_begun = n_begun;
	return !is_stuck;
}

#endif
