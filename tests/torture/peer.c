/* SPDX-License-Identifier: Apache-2.0 */
#include "peer.h"

#include <errno.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "world.h"

#define LOOK_NS (10 * UINT64_C(1000000))

static const struct peer peer_none = {
	.sock = -1, .results_fd = -1, .frames_fd = -1, .bell = -1, .next_id = 1
};

int peer_connect(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	if (sock < 0)
		return -errno;
	(void)strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
	if (connect(sock, (const void *)&address, sizeof(address)) < 0) {
		int r = -errno;

		(void)close(sock);
		return r;
	}
	return sock;
}

static int map_regions(struct peer *peer)
{
	void *results, *frames;

	results = mmap(NULL, peer->results_bytes, PROT_READ, MAP_SHARED, peer->results_fd, 0);
	if (results == MAP_FAILED)
		return -errno;
	peer->results = results;
	frames = mmap(
		NULL, peer->frames_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, peer->frames_fd, 0);
	if (frames == MAP_FAILED)
		return -errno;
	peer->frames = frames;
	return 0;
}

static int take_welcome(struct peer *peer, struct wire *wire, int timeout_ms)
{
	struct pollfd poller = { .fd = peer->sock, .events = POLLIN };
	const Kamen__Welcome *welcome;
	ProtobufCMessage *message;
	int r;

	if (poll(&poller, 1, timeout_ms) <= 0)
		return -ETIMEDOUT;
	r = wire_recv(wire, peer->sock, &kamen__welcome__descriptor, &message);
	if (r <= 0)
		return r == 0 || r == -ECONNRESET ? -ENOTCONN : r;
	welcome = (const Kamen__Welcome *)message;
	if (welcome->error)
		return welcome->error->code < 0 ? welcome->error->code : -EPROTO;
	peer->n_slots = welcome->n_slots;
	peer->slot_bytes = welcome->slot_bytes;
	peer->results_bytes = welcome->results_bytes;
	peer->frames_bytes = welcome->frames_bytes;
	peer->results_fd = wire_take_fd(wire, 0);
	peer->frames_fd = wire_take_fd(wire, 1);
	peer->bell = wire_take_fd(wire, 2);
	if (peer->results_fd < 0 || peer->frames_fd < 0 || peer->bell < 0)
		return -EMFILE;
	return map_regions(peer);
}

int peer_open(struct peer *peer, struct wire *wire, const char *path, uint32_t n_slots,
	uint64_t slot_bytes, int timeout_ms)
{
	Kamen__Hello hello = KAMEN__HELLO__INIT;
	int r;

	*peer = peer_none;
	hello.major = WIRE_MAJOR;
	hello.minor = WIRE_MINOR;
	hello.has_n_slots = hello.has_slot_bytes = hello.has_layout = true;
	hello.layout = SHM_LAYOUT_VERSION;
	hello.n_slots = n_slots;
	hello.slot_bytes = slot_bytes;
	peer->sock = peer_connect(path);
	if (peer->sock < 0)
		return peer->sock;
	r = wire_send(peer->sock, &hello.base, NULL, 0);
	if (r >= 0)
		r = take_welcome(peer, wire, timeout_ms);
	if (r < 0)
		peer_close(peer);
	return r == -EPIPE ? -ENOTCONN : r;
}

static void close_one(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
	*fd = -1;
}

void peer_close(struct peer *peer)
{
	close_one(&peer->sock);
	close_one(&peer->results_fd);
	close_one(&peer->frames_fd);
	close_one(&peer->bell);
	if (peer->results)
		(void)munmap(peer->results, peer->results_bytes);
	if (peer->frames)
		(void)munmap(peer->frames, peer->frames_bytes);
	*peer = peer_none;
}

uint8_t *peer_slot(const struct peer *peer, uint32_t slot)
{
	return peer->frames + shm_slot_offset(peer->n_slots, peer->slot_bytes, slot);
}

struct shm_request *peer_entry(const struct peer *peer, uint32_t cursor)
{
	return (struct shm_request *)(peer->frames + shm_submissions_offset()) +
	       (cursor & (peer->n_slots - 1));
}

_Atomic uint32_t *peer_head(const struct peer *peer)
{
	return &((struct shm_frames_header *)peer->frames)->submission_head;
}

void peer_put(struct peer *peer, struct shm_request *request)
{
	request->id = peer->next_id++;
	memcpy(peer_entry(peer, peer->head), request, sizeof(*request));
	peer->head++;
	if (request->slot < peer->n_slots)
		peer->busy |= UINT64_C(1) << request->slot;
}

void peer_publish(struct peer *peer)
{
	atomic_store_explicit(peer_head(peer), peer->head, memory_order_release);
}

void peer_ring(const struct peer *peer)
{
	const uint64_t one = 1;

	(void)!write(peer->bell, &one, sizeof(one));
}

void peer_submit(struct peer *peer, struct shm_request *request)
{
	peer_put(peer, request);
	peer_publish(peer);
	peer_ring(peer);
}

int peer_free_slot(const struct peer *peer)
{
	for (uint32_t i = 0; i < peer->n_slots; i++)
		if (!(peer->busy >> i & 1))
			return (int)i;
	return -1;
}

static bool take_completion(struct peer *peer, const struct shm_result **ret_result)
{
	const struct shm_results_header *header = (const void *)peer->results;
	const struct shm_completion *ring =
		(const void *)(peer->results + shm_completions_offset());
	uint32_t head = atomic_load_explicit(&header->completion_head, memory_order_acquire);
	const struct shm_completion *completion;

	if (head == peer->seen)
		return false;
	completion = &ring[peer->seen++ & (peer->n_slots - 1)];
	peer->busy &= ~(UINT64_C(1) << completion->slot);
	*ret_result = (const struct shm_result *)(const void *)(peer->results +
								shm_results_offset(peer->n_slots)) +
		      completion->slot;
	return true;
}

/* False: it is over. */
static bool take_bells(const struct peer *peer)
{
	char bells[256];
	ssize_t n;

	do
		n = recv(peer->sock, bells, sizeof(bells), MSG_DONTWAIT);
	while (n > 0);
	return n < 0 && (errno == EAGAIN || errno == EINTR);
}

int peer_wait(struct peer *peer, int timeout_ms, const struct shm_result **ret_result)
{
	uint64_t end = clock_now_ns() + (uint64_t)timeout_ms * 1000000;

	for (;;) {
		struct pollfd poller = { .fd = peer->sock, .events = POLLIN };
		uint64_t now, rest;

		if (take_completion(peer, ret_result))
			return 1;
		now = clock_now_ns();
		if (now >= end)
			return 0;
		/* Who has scribbled over its own words may have said that it needs no bells. */
		rest = peer->needs_bells || end - now < LOOK_NS ? end - now : LOOK_NS;
		(void)poll(&poller, 1, (int)(rest / 1000000) + 1);
		if (poller.revents && !take_bells(peer))
			return take_completion(peer, ret_result) ? 1 : -ENOTCONN;
	}
}

int peer_drain(struct peer *peer)
{
	const struct shm_result *result;
	int n = 0;

	while (take_completion(peer, &result))
		n++;
	return take_bells(peer) ? n : -ENOTCONN;
}
