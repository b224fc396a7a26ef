/* SPDX-License-Identifier: Apache-2.0 */
#include "client.h"

#include <errno.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "cleanup.h"
#include "wire.h"

#define HANDSHAKE_MS 10000

/* The Welcome, with its three descriptors still in wire. */
static int handshake(struct kamen_client *client, struct wire *wire, uint32_t n_slots,
	uint64_t slot_bytes, const Kamen__Welcome **ret_welcome)
{
	struct pollfd poller = { .fd = client->sock, .events = POLLIN };
	Kamen__Hello hello = KAMEN__HELLO__INIT;
	ProtobufCMessage *message = NULL;
	const Kamen__Welcome *welcome;
	int r;

	hello.major = WIRE_MAJOR;
	hello.minor = WIRE_MINOR;
	hello.has_n_slots = hello.has_slot_bytes = 1;
	hello.n_slots = n_slots;
	hello.slot_bytes = slot_bytes;
	r = wire_send(client->sock, &hello.base, NULL, 0);
	if (r < 0)
		return r == -EPIPE || r == -ECONNRESET ? -ECONNREFUSED : r;
	r = poll(&poller, 1, HANDSHAKE_MS);
	if (r <= 0)
		return r < 0 ? -errno : -ETIMEDOUT;
	r = wire_recv(wire, client->sock, &kamen__welcome__descriptor, &message);
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

static int map(int fd, size_t n_bytes, int protection, void **ret_address)
{
	struct stat st;
	void *address;

	/* Shorter than promised would be a SIGBUS later. */
	if (fd < 0 || fstat(fd, &st) < 0 || st.st_size < 0 || (uint64_t)st.st_size < n_bytes)
		return -EPROTO;
	address = mmap(NULL, n_bytes, protection, MAP_SHARED, fd, 0);
	if (address == MAP_FAILED)
		return -errno;
	*ret_address = address;
	return 0;
}

static int sizes_take(struct kamen_client *client, const Kamen__Welcome *welcome)
{
	uint32_t n = welcome->n_slots;

	if (n == 0 || n > SHM_MAX_SLOTS || (n & (n - 1)) || welcome->slot_bytes == 0 ||
		welcome->slot_bytes > SHM_MAX_SLOT_BYTES)
		return -EPROTO;
	if (welcome->results_bytes != shm_results_bytes(n) ||
		welcome->frames_bytes != shm_frames_bytes(n, welcome->slot_bytes))
		return -EPROTO;
	client->n_slots = n;
	client->slot_bytes = welcome->slot_bytes;
	client->results_bytes = welcome->results_bytes;
	client->frames_bytes = welcome->frames_bytes;
	return 0;
}

static int regions_map(struct kamen_client *client, int results_fd, int frames_fd)
{
	void *results = NULL, *frames = NULL;
	int r;

	r = map(results_fd, client->results_bytes, PROT_READ, &results);
	if (r < 0)
		return r;
	client->results = results;
	r = map(frames_fd, client->frames_bytes, PROT_READ | PROT_WRITE, &frames);
	if (r < 0)
		return r;
	client->frames = frames;
	if (client->results->magic != SHM_RESULTS_MAGIC ||
		client->results->version != SHM_LAYOUT_VERSION ||
		client->results->n_slots != client->n_slots ||
		client->results->slot_bytes != client->slot_bytes ||
		client->frames->magic != SHM_FRAMES_MAGIC ||
		client->frames->version != SHM_LAYOUT_VERSION ||
		client->frames->n_slots != client->n_slots ||
		client->frames->slot_bytes != client->slot_bytes)
		return -EPROTO;
	/* The ring only reads completions: the constness goes for the shared struct's sake. */
	client->completions = (struct shm_ring){ (uint8_t *)results + shm_completions_offset(),
		sizeof(struct shm_completion), client->n_slots, 0 };
	client->submissions = (struct shm_ring){ (uint8_t *)frames + shm_submissions_offset(),
		sizeof(struct shm_request), client->n_slots, 0 };
	return 0;
}

int session_open(struct kamen_client *client, uint32_t n_slots, uint64_t slot_bytes)
{
	_cleanup_(closep) int results_fd = -1;
	_cleanup_(closep) int frames_fd = -1;
	_cleanup_(wire_freep) struct wire *wire = NULL;
	const Kamen__Welcome *welcome = NULL;
	int r;

	r = wire_new(&wire);
	if (r < 0)
		return r;
	r = handshake(client, wire, n_slots, slot_bytes, &welcome);
	if (r < 0)
		return r;
	results_fd = wire_take_fd(wire, 0);
	frames_fd = wire_take_fd(wire, 1);
	client->doorbell = wire_take_fd(wire, 2);
	if (client->doorbell < 0)
		return -EPROTO;
	r = sizes_take(client, welcome);
	if (r < 0)
		return r;
	return regions_map(client, results_fd, frames_fd);
}

void session_close(struct kamen_client *client)
{
	if (client->results)
		(void)munmap((void *)(uintptr_t)client->results, client->results_bytes);
	if (client->frames)
		(void)munmap(client->frames, client->frames_bytes);
	client->results = NULL;
	client->frames = NULL;
}
