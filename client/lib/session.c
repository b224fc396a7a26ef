/* SPDX-License-Identifier: Apache-2.0 */
#include "client.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "cleanup.h"
#include "wire.h"

#define CONNECT_SECONDS 10

static int socket_connect(const struct kamen_client *client, bool may_wait, int *ret_sock)
{
	/* A daemon whose queue of connections is full makes connect() wait: not for ever. */
	struct timeval patience = { .tv_sec = CONNECT_SECONDS };
	_cleanup_(closep) int sock = -1;

	sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | (may_wait ? 0 : SOCK_NONBLOCK), 0);
	if (sock < 0)
		return -errno;
	(void)setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (connect(sock, (const struct sockaddr *)&client->address, sizeof(client->address)) < 0)
		return -errno;
	*ret_sock = TAKE_FD(sock);
	return 0;
}

int session_begin(struct kamen_client *client, bool may_wait)
{
	struct epoll_event event = { .events = EPOLLIN };
	Kamen__Hello hello = KAMEN__HELLO__INIT;
	_cleanup_(closep) int sock = -1;
	int r;

	r = socket_connect(client, may_wait, &sock);
	if (r < 0)
		return r;
	hello.major = WIRE_MAJOR;
	hello.minor = WIRE_MINOR;
	hello.has_features = hello.has_n_slots = hello.has_slot_bytes = hello.has_layout = 1;
	hello.layout = SHM_LAYOUT_VERSION;
	hello.features = WIRE_RESUME;
	hello.n_slots = client->n_slots;
	hello.slot_bytes = client->slot_bytes;
	r = wire_send(sock, &hello.base, NULL, 0);
	if (r < 0)
		return r == -EPIPE || r == -ECONNRESET ? -ECONNREFUSED : r;
	if (epoll_ctl(client->epoll, EPOLL_CTL_ADD, sock, &event) < 0)
		return -errno;
	client->sock = TAKE_FD(sock);
	return 0;
}

/* The Welcome, with its three descriptors still in wire. */
static int welcome_take(struct kamen_client *client, const Kamen__Welcome **ret_welcome)
{
	ProtobufCMessage *message = NULL;
	const Kamen__Welcome *welcome;
	int r;

	r = wire_recv(client->wire, client->sock, &kamen__welcome__descriptor, &message);
	if (r <= 0)
		return r == 0 || r == -ECONNRESET ? -ECONNREFUSED : r == -EBADMSG ? -EPROTO : r;
	welcome = (const Kamen__Welcome *)message;
	if (welcome->error)
		return welcome->error->code < 0 && welcome->error->code > -4096
			       ? welcome->error->code
			       : -EPROTO;
	if (welcome->major != WIRE_MAJOR)
		return -EPROTO;
	*ret_welcome = welcome;
	return 0;
}

static int sizes_check(const struct kamen_client *client, const Kamen__Welcome *welcome)
{
	uint32_t n = welcome->n_slots;

	if (n == 0 || n > SHM_MAX_SLOTS || (n & (n - 1)) || welcome->slot_bytes == 0 ||
		welcome->slot_bytes > SHM_MAX_SLOT_BYTES)
		return -EPROTO;
	if (welcome->results_bytes != shm_results_bytes(n) ||
		welcome->frames_bytes != shm_frames_bytes(n, welcome->slot_bytes))
		return -EPROTO;
	/* What was acquired or is in flight has to find its place. */
	if (client->frames && (n < client->n_slots || welcome->slot_bytes < client->slot_bytes))
		return -EMSGSIZE;
	return 0;
}

static void regions_replace(
	struct kamen_client *client, struct region *results, struct region *frames)
{
	if (!client->frames) {
		client->n_slots = frames->n_slots;
		client->slot_bytes = frames->slot_bytes;
	}
	(void)region_unref(client->results);
	(void)region_unref(client->frames);
	client->results = results;
	client->frames = frames;
	client->generation = 0;
	client->n_taken = client->n_unheard = 0;
	client->completions = (struct shm_ring){ results->at + shm_completions_offset(),
		sizeof(struct shm_completion), results->n_slots, 0 };
	client->submissions = (struct shm_ring){ frames->at + shm_submissions_offset(),
		sizeof(struct shm_request), frames->n_slots, 0 };
}

int session_finish(struct kamen_client *client)
{
	_cleanup_(region_unrefp) struct region *results = NULL;
	_cleanup_(region_unrefp) struct region *frames = NULL;
	_cleanup_(closep) int results_fd = -1;
	_cleanup_(closep) int frames_fd = -1;
	_cleanup_(closep) int doorbell = -1;
	const Kamen__Welcome *welcome = NULL;
	int r;

	r = welcome_take(client, &welcome);
	if (r < 0)
		return r;
	results_fd = wire_take_fd(client->wire, 0);
	frames_fd = wire_take_fd(client->wire, 1);
	doorbell = wire_take_fd(client->wire, 2);
	if (doorbell < 0)
		return -EMFILE;
	r = sizes_check(client, welcome);
	if (r < 0)
		return r;
	r = region_map_results(&results, results_fd, welcome->n_slots, welcome->slot_bytes);
	if (r < 0)
		return r;
	r = region_map_frames(&frames, frames_fd, welcome->n_slots, welcome->slot_bytes);
	if (r < 0)
		return r;
	client->doorbell = TAKE_FD(doorbell);
	regions_replace(client, TAKE_PTR(results), TAKE_PTR(frames));
	return 0;
}

void session_hang_up(struct kamen_client *client)
{
	/* Its only descriptor: closing takes it out of the epoll too. */
	closep(&client->sock);
	closep(&client->doorbell);
	client->sock = client->doorbell = -1;
}
