/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/peer.h"

#include <errno.h>
#include <grp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine.h"

/* What the kernel shows in place of a uid that has no name in this user namespace. */
#define OVERFLOW_UID 65534

static gid_t group_id(const char *name)
{
	struct group group, *found = NULL;
	char buffer[16384];

	if (getgrnam_r(name, &group, buffer, sizeof(buffer), &found) != 0 || !found)
		return (gid_t)-1;
	return found->gr_gid;
}

void peer_policy_read(struct peer_policy *ret_policy)
{
	*ret_policy = (struct peer_policy){
		.own = geteuid(),
		.data = group_id("kamen"),
		.admin = group_id("kamen-admin"),
	};
}

static bool is_member(gid_t wanted, gid_t primary, const gid_t *groups, size_t n)
{
	if (wanted == (gid_t)-1)
		return false;
	if (primary == wanted)
		return true;
	for (size_t i = 0; i < n; i++)
		if (groups[i] == wanted)
			return true;
	return false;
}

int peer_read(struct peer *ret_peer, int fd, const struct peer_policy *policy)
{
	_cleanup_(freep) gid_t *groups = NULL;
	struct ucred cred;
	socklen_t n_cred = sizeof(cred), n_groups = 0;
	bool trusted;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &n_cred) < 0)
		return -errno;
	/* Asked once for the size; a process without further groups says 0. */
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &n_groups) < 0 && errno != ERANGE)
		return -errno;
	groups = malloc(n_groups + sizeof(gid_t));
	if (!groups)
		return -ENOMEM;
	if (n_groups > 0 && getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &n_groups) < 0)
		return -errno;

	*ret_peer = (struct peer){ .uid = cred.uid, .pid = cred.pid };
	if (cred.uid == OVERFLOW_UID)
		return 0;
	trusted = cred.uid == 0 || cred.uid == policy->own;
	n_groups /= sizeof(gid_t);
	ret_peer->may_data = trusted || is_member(policy->data, cred.gid, groups, n_groups);
	ret_peer->may_admin = trusted || is_member(policy->admin, cred.gid, groups, n_groups);
	return 0;
}
