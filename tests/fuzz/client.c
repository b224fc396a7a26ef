/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libkamen against a daemon that does anything at all. The first byte says whether the Welcome is an
 * honest one (else it is of the input too) and whether the client would reconnect; then each byte is
 * a step of one side. Whatever happens, a request has at most one result, and exactly one at the end
 * of the session.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client.h"
#include "wire.h"

#define N_SLOTS 2u
#define SLOT_BYTES SHM_PAGE
#define MOST_REQUESTS 256u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct play {
	const uint8_t *data;
	size_t n;
	struct kamen_client *client;
	int sock; /* the daemon's end */
	int fds[3];
	uint8_t *results;
	uint64_t generation;
	uint64_t n_asked;
	bool answered[MOST_REQUESTS + 1];
};

static uint8_t next_byte(struct play *play)
{
	if (play->n == 0)
		return 0;
	play->n--;
	return *play->data++;
}

static int region_make(size_t n_bytes, void **ret_at)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, (off_t)n_bytes) < 0)
		abort();
	*ret_at = mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (*ret_at == MAP_FAILED)
		abort();
	return fd;
}

static void regions_make(struct play *play)
{
	struct shm_results_header *results;
	struct shm_frames_header *frames;
	void *at;

	play->fds[0] = region_make(shm_results_bytes(N_SLOTS), &at);
	play->results = at;
	results = at;
	play->fds[1] = region_make(shm_frames_bytes(N_SLOTS, SLOT_BYTES), &at);
	frames = at;
	play->fds[2] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	results->magic = SHM_RESULTS_MAGIC;
	frames->magic = SHM_FRAMES_MAGIC;
	results->version = frames->version = SHM_LAYOUT_VERSION;
	results->n_slots = frames->n_slots = N_SLOTS;
	results->slot_bytes = frames->slot_bytes = SLOT_BYTES;
	(void)munmap(at, shm_frames_bytes(N_SLOTS, SLOT_BYTES));
}

static void packet_send(struct play *play, const void *bytes, size_t n, unsigned n_fds)
{
	_Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(3 * sizeof(int))] = { 0 };
	struct iovec iov = { (void *)(uintptr_t)bytes, n };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (n_fds) {
		struct cmsghdr *c;

		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(c), play->fds, n_fds * sizeof(int));
	}
	(void)sendmsg(play->sock, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* Bytes of the input as a packet. */
static void packet_copy(struct play *play)
{
	size_t n = next_byte(play);
	unsigned n_fds = n % 4;

	if (n > play->n)
		n = play->n;
	packet_send(play, play->data, n, n_fds);
	play->data += n;
	play->n -= n;
}

static void welcome_send(struct play *play)
{
	Kamen__Welcome w = KAMEN__WELCOME__INIT;

	w.major = WIRE_MAJOR;
	w.has_n_slots = w.has_slot_bytes = w.has_results_bytes = w.has_frames_bytes = 1;
	w.n_slots = N_SLOTS;
	w.slot_bytes = SLOT_BYTES;
	w.results_bytes = shm_results_bytes(N_SLOTS);
	w.frames_bytes = shm_frames_bytes(N_SLOTS, SLOT_BYTES);
	(void)wire_send(play->sock, &w.base, play->fds, 3);
}

/* 0: there is a session. */
static int begin(struct play *play)
{
	struct epoll_event event = { .events = EPOLLIN };
	struct kamen_client *client = calloc(1, sizeof(*client));
	uint8_t how = next_byte(play);
	int sv[2];

	if (!client || wire_new(&client->wire) < 0 ||
		socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) < 0)
		abort();
	play->client = client;
	play->sock = sv[1];
	regions_make(play);
	client->sock = sv[0];
	client->doorbell = -1;
	client->epoll = epoll_create1(EPOLL_CLOEXEC);
	(void)epoll_ctl(client->epoll, EPOLL_CTL_ADD, sv[0], &event);
	client->address =
		(struct sockaddr_un){ .sun_family = AF_UNIX, .sun_path = "/nonexistent/fuzz" };
	client->may_reconnect = how & 2;
	client->reconnect_ns = how & 4 ? 1 : UINT64_MAX;
	if (how & 1)
		packet_copy(play);
	else
		welcome_send(play);
	return session_finish(client);
}

static void ask(struct play *play)
{
	struct kamen_request request = {
		.size = sizeof(request), .verb = KAMEN_ECHO, .n_bytes = 1
	};
	struct kamen_frame frame;
	uint64_t id;

	request.deadline_ns = next_byte(play) & 1; /* passed long ago, or none */
	if (play->n_asked >= MOST_REQUESTS || kamen_frame_acquire(play->client, 1, &frame) < 0)
		return;
	memset(frame.data, 7, frame.capacity);
	if (kamen_submit(play->client, &frame, &request, &id) < 0) {
		kamen_frame_discard(play->client, &frame);
		return;
	}
	if (id != ++play->n_asked)
		abort();
}

static void take(struct play *play)
{
	struct kamen_result result;

	(void)kamen_process(play->client);
	while (kamen_next(play->client, &result) == 1) {
		if (result.id == 0 || result.id > play->n_asked || play->answered[result.id])
			abort();
		play->answered[result.id] = true;
		if (strlen(result.reason) >= SHM_REASON_CHARS ||
			strlen(result.label) >= SHM_LABEL_CHARS)
			abort();
		for (uint32_t i = 0; i < result.n_embedding; i++)
			(void)*(const volatile float *)&result.embedding[i];
		for (uint32_t i = 0; i < result.n_hardness; i++)
			(void)*(const volatile float *)&result.hardness[i];
		kamen_release(play->client, &result);
	}
}

static void scribble(struct play *play)
{
	size_t at = (next_byte(play) << 8 | next_byte(play)) % shm_results_bytes(N_SLOTS);
	size_t n = next_byte(play);

	for (; n > 0 && at < shm_results_bytes(N_SLOTS); n--)
		play->results[at++] = next_byte(play);
}

static void complete(struct play *play)
{
	struct shm_results_header *header = (void *)play->results;
	uint32_t head = atomic_load(&header->completion_head), slot = next_byte(play) % N_SLOTS;
	struct shm_completion completion = { .slot = slot,
		.id = play->client->slots[slot].entry.id };

	memcpy(play->results + shm_completions_offset() + head % N_SLOTS * sizeof(completion),
		&completion, sizeof(completion));
	atomic_store(&header->completion_head, head + 1);
	atomic_fetch_add(&header->submission_tail, 1);
}

static void resume(struct play *play)
{
	Kamen__Resumed resumed = KAMEN__RESUMED__INIT;
	void *at;
	size_t n = shm_results_bytes(N_SLOTS);

	(void)close(play->fds[0]);
	play->fds[0] = region_make(n, &at);
	memcpy(at, play->results, n);
	(void)munmap(play->results, n);
	play->results = at;
	resumed.generation = ++play->generation;
	resumed.results_bytes = n;
	(void)wire_send(play->sock, &resumed.base, play->fds, 1);
}

static void hang_up(struct play *play)
{
	if (play->sock >= 0)
		(void)close(play->sock);
	play->sock = -1;
}

static void step(struct play *play)
{
	switch (next_byte(play) % 8) {
	case 0:
	case 1:
		ask(play);
		break;
	case 2:
		take(play);
		break;
	case 3:
		complete(play);
		break;
	case 4:
		scribble(play);
		break;
	case 5:
		packet_copy(play);
		break;
	case 6:
		resume(play);
		break;
	default:
		if (next_byte(play) == 255)
			hang_up(play);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct play play = { .data = data, .n = n };

	if (begin(&play) == 0) {
		while (play.n > 0)
			step(&play);
		hang_up(&play);
		play.client->may_reconnect = false;
		take(&play);
		take(&play);
		for (uint64_t id = 1; id <= play.n_asked && play.client->link == LINK_ENDED; id++)
			if (!play.answered[id])
				abort();
	}
	hang_up(&play);
	(void)kamen_client_free(play.client);
	(void)munmap(play.results, shm_results_bytes(N_SLOTS));
	for (unsigned i = 0; i < 3; i++)
		(void)close(play.fds[i]);
	return 0;
}
