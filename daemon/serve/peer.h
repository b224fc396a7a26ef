/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_PEER_H
#define KAMEN_SERVE_PEER_H

#include <stdbool.h>
#include <sys/types.h>

/** Who may do what (design.md section 4), read once at start. */
struct peer_policy {
	uid_t own;
	gid_t data, admin; /* groups kamen and kamen-admin; (gid_t)-1: there is no such group */
};

/** Who is at the other end of a socket, bound to the session at connect. */
struct peer {
	uid_t uid;
	pid_t pid;
	bool may_data, may_admin;
};

void peer_policy_read(struct peer_policy *ret_policy);
/** 0, or what getsockopt said. The kernel's overflow uid may do nothing. */
int peer_read(struct peer *ret_peer, int fd, const struct peer_policy *policy);

#endif
