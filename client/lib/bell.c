/* SPDX-License-Identifier: Apache-2.0 */
#include "client.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "cleanup.h"
#include "wire.h"

#define N_BELLS 4u
#define PACKET_BYTES 64u /* a Resumed has 22 at most, a bell one */
#define N_FDS 4u

/* A packet, and room for more descriptors than it may have: none must stay open unseen. */
struct packet {
	uint8_t bytes[PACKET_BYTES];
	_Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(N_FDS * sizeof(int))];
	struct iovec iov;
};

/* The first descriptor; others are closed. */
static int packet_fd(struct msghdr *msg)
{
	int first = -1;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (first < 0)
				first = fd;
			else
				closep(&fd);
		}
	}
	return first;
}

/* Another process serves this session: its answers come in another region from now on. */
static int resumed_take(struct kamen_client *client, const uint8_t *bytes, size_t n, int fd)
{
	_cleanup_(region_unrefp) struct region *results = NULL;
	ProtobufCMessage *message = NULL;
	const Kamen__Resumed *resumed;
	const uint64_t one = 1;
	int r;

	if (wire_decode(client->wire, &kamen__resumed__descriptor, bytes, n, &message) < 0)
		return -EPROTO;
	resumed = (const Kamen__Resumed *)message;
	if (resumed->generation <= client->generation ||
		resumed->results_bytes != client->results->n_bytes)
		return -EPROTO;
	r = region_map_results(&results, fd, client->results->n_slots, client->results->slot_bytes);
	if (r < 0)
		return r;
	/* What the old process has answered still lies in the old region. */
	r = completions_take(client);
	if (r < 0)
		return r;
	client->generation = resumed->generation;
	client->completions.entries = results->at + shm_completions_offset();
	(void)region_unref(client->results);
	client->results = TAKE_PTR(results);
	/* The old process may have died looking, and so nobody was rung for what we submitted since. */
	(void)!write(client->doorbell, &one, sizeof(one));
	return 0;
}

static int packet_take(struct kamen_client *client, const struct mmsghdr *got)
{
	const struct msghdr *msg = &got->msg_hdr;
	_cleanup_(closep) int fd = msg->msg_controllen ? packet_fd((struct msghdr *)msg) : -1;

	if (got->msg_len == 0)
		return -ENOTCONN;
	if (got->msg_len == 1)
		return 0;
	if (msg->msg_flags & MSG_TRUNC)
		return -EPROTO;
	return resumed_take(client, msg->msg_iov->iov_base, got->msg_len, fd);
}

/* Bytes that say "look": how many does not matter. Before the cursor is read, never after. */
int bell_drain(struct kamen_client *client)
{
	struct packet packets[N_BELLS];
	struct mmsghdr got[N_BELLS];
	int n, r = 0;

	client->n_unheard = 0;
	do {
		for (unsigned i = 0; i < N_BELLS; i++) {
			packets[i].iov = (struct iovec){ packets[i].bytes, PACKET_BYTES };
			got[i].msg_hdr = (struct msghdr){ .msg_iov = &packets[i].iov,
				.msg_iovlen = 1,
				.msg_control = packets[i].control,
				.msg_controllen = sizeof(packets[i].control) };
		}
		n = recvmmsg(client->sock, got, N_BELLS, MSG_DONTWAIT | MSG_CMSG_CLOEXEC, NULL);
		if (n < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : -ENOTCONN;
		/* All of them, also after one that makes no sense: they may carry descriptors. */
		for (int i = 0; i < n; i++) {
			int taken = packet_take(client, &got[i]);

			r = r < 0 ? r : taken;
		}
	} while (r == 0 && n == N_BELLS);
	return r;
}
