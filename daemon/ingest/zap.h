/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_INGEST_ZAP_H
#define KAMEN_INGEST_ZAP_H

#include <systemd/sd-event.h>

#include "ingest/peers.h"

/*
 * ZAP 1.0 (rfc.zeromq.org/spec/27): libzmq asks about every connection before its first message.
 * The domain, which is ours, says by what mechanism: CURVE lets in the keys of the list, NULL who
 * could connect at all. The User-Id of every message is then the peer's name (peers.h).
 */
#define ZAP_CURVE "curve"
#define ZAP_IPC "ipc"
#define ZAP_PLAIN "plain" /* tcp on this machine */
/** The property of messages that tells their connections apart: bound_connection(). */
#define ZAP_CONNECTION "Kamen-Connection"

struct zap;

/** Before any socket with a domain is bound. peers: read when a question comes, the caller's. */
int zap_new(struct zap **ret_zap, void *context, sd_event *event, struct peers *const *peers);
void zap_free(struct zap *zap);
/** Lets no new connection of this peer in for a while: it breaks what others share. */
void zap_shun(struct zap *zap, const char *peer);
/** Connections that were not let in. */
uint64_t zap_n_denied(const struct zap *zap);

/** One frame of a question; borrowed. */
struct zap_frame {
	const void *data;
	size_t n_bytes;
};

/**
 * Without a socket, for tests and the fuzzer.
 *
 * @param ret_text  why not, always written
 * @return 200 with ret_peer, 400: not let in, 500: not a question that makes sense
 */
int zap_judge(const struct peers *peers, const struct zap_frame *frames, unsigned n_frames,
	char ret_peer[PEER_CHARS], const char **ret_text);

#endif
