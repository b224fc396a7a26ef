/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_INGEST_PEERS_H
#define KAMEN_INGEST_PEERS_H

#include <stdbool.h>
#include <stddef.h>

#include "engine.h"

/*
 * Who may speak for which sites over ZeroMQ: an INI file, a section a peer, with one of key=, uid=
 * and address=, and sites=, see kamend.conf(5). Who a connection is, libzmq knows (zap.h); what a
 * header says of that counts for nothing.
 */
struct peers;

/** Bytes of a peer's name as ZAP gives it: "key:Z85", "uid:N" or "address:IP". */
#define PEER_CHARS 64u

/** @return 0, or -EINVAL with PATH:LINE in diag, -ENOMEM */
int peers_parse(struct peers **ret_peers, const char *path, const char *text, size_t n_bytes,
	struct diag *diag);
/** path: "" is an empty list. Refuses a file that others than its owner and group may write. */
int peers_read(struct peers **ret_peers, const char *path, struct diag *diag);
void peers_free(struct peers *peers);
static inline void peers_freep(struct peers **peers)
{
	peers_free(*peers);
}

/** The list for want of one that can be read: nobody speaks for any site. NULL: no memory. */
struct peers *peers_nobody(void);

/** Whether the list has it. */
bool peers_has(const struct peers *peers, const char *peer);
/**
 * Whether it may speak for a site; "" asks for all of them. Users and addresses that the list does
 * not name are let in for every site: who opens the socket's file, or plain tcp, has decided so.
 */
bool peers_may(const struct peers *peers, const char *peer, const char *site);
/** The i-th site of one that may not speak for all; NULL: no more. */
const char *peers_site(const struct peers *peers, const char *peer, unsigned i);

#endif
