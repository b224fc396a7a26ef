/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_BENCH_PEER_H
#define KAMEN_BENCH_PEER_H

#include <stddef.h>
#include <stdint.h>

/**
 * What `ipc` stands beside: a process that answers over ZeroMQ REQ/REP on a unix socket, reading
 * every byte as the daemon's ECHO does, with an answer as large as a result without embedding.
 */
struct peer;

int peer_start(struct peer **ret_peer);
void peer_free(struct peer *peer);
static inline void peer_freep(struct peer **peer)
{
	peer_free(*peer);
}

/** One round trip of n_bytes, all of them `fill`. 0 or a negative errno. */
int peer_echo(struct peer *peer, size_t n_bytes, int fill, uint64_t *ret_checksum);

#endif
