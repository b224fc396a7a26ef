/* SPDX-License-Identifier: Apache-2.0 */
#include "fake_daemon.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "shm_layout.h"
#include "shm_ring.h"
#include "wire.h"

struct fake {
	enum fake_mode mode;
	char dir[64], path[96];
	int listener, sock, doorbell, wake;
	uint64_t generation;
	unsigned i_session;
	pthread_t thread;
	uint32_t n_slots;
	uint64_t slot_bytes;
	uint8_t *results, *frames;
	struct shm_ring submissions, completions;
	struct shm_request silent;
	int has_silent;
	struct shm_request held[SHM_MAX_SLOTS];
	unsigned n_held, n_sessions;
};

static void must(int ok, const char *what)
{
	if (!ok) {
		(void)fprintf(stderr, "fake daemon: %s: %s\n", what, strerror(errno));
		abort();
	}
}

static int region(size_t n_bytes, uint8_t **ret_address)
{
	int fd = memfd_create("fake", MFD_CLOEXEC);

	must(fd >= 0 && ftruncate(fd, (off_t)n_bytes) == 0, "memfd");
	*ret_address = mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	must(*ret_address != MAP_FAILED, "mmap");
	return fd;
}

static void results_begin(const struct fake *fake, uint32_t version)
{
	struct shm_results_header *results = (struct shm_results_header *)fake->results;

	results->magic = SHM_RESULTS_MAGIC;
	results->version = version;
	results->n_slots = fake->n_slots;
	results->slot_bytes = fake->slot_bytes;
}

static void regions_make(struct fake *fake, int fds[3])
{
	struct shm_frames_header *frames;
	uint32_t version = SHM_LAYOUT_VERSION + (fake->mode == FAKE_OLD_LAYOUT);

	fds[0] = region(shm_results_bytes(fake->n_slots), &fake->results);
	fds[1] = region(shm_frames_bytes(fake->n_slots, fake->slot_bytes), &fake->frames);
	fds[2] = fake->doorbell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	results_begin(fake, version);
	frames = (struct shm_frames_header *)fake->frames;
	frames->magic = SHM_FRAMES_MAGIC;
	frames->version = version;
	frames->n_slots = fake->n_slots;
	frames->slot_bytes = fake->slot_bytes;
	fake->submissions = (struct shm_ring){ fake->frames + shm_submissions_offset(),
		sizeof(struct shm_request), fake->n_slots, 0 };
	fake->completions = (struct shm_ring){ fake->results + shm_completions_offset(),
		sizeof(struct shm_completion), fake->n_slots, 0 };
	if (fake->mode == FAKE_SHORT_FILE)
		must(ftruncate(fds[1], 4096) == 0, "ftruncate");
}

static void sizes_choose(struct fake *fake, const Kamen__Hello *hello)
{
	int later = fake->i_session > 0;

	fake->n_slots = hello->n_slots;
	fake->slot_bytes = hello->slot_bytes;
	if (later && fake->mode == FAKE_THEN_FEWER)
		fake->n_slots /= 2;
	if (later && fake->mode == FAKE_THEN_SMALLER)
		fake->slot_bytes -= 1;
	if (later && fake->mode == FAKE_THEN_LARGER) {
		fake->n_slots *= 2;
		fake->slot_bytes *= 2;
	}
}

/* 0: none. */
static int refusal(const struct fake *fake)
{
	if (fake->mode == FAKE_FULL || (fake->mode == FAKE_THEN_FULL && fake->i_session == 1))
		return -EUSERS;
	return fake->mode == FAKE_THEN_DENIES && fake->i_session > 0 ? -EACCES : 0;
}

static int is_served(const struct fake *fake)
{
	if (fake->mode == FAKE_HONEST || fake->mode == FAKE_LATE || fake->mode == FAKE_THEN_LARGER)
		return 1;
	return fake->mode >= FAKE_THEN_FULL &&
	       (fake->i_session == 0 || (fake->mode == FAKE_THEN_FULL && fake->i_session > 1));
}

/* 0: the session is on. */
static int welcome(struct fake *fake)
{
	Kamen__Welcome w = KAMEN__WELCOME__INIT;
	Kamen__Error error = KAMEN__ERROR__INIT;
	struct pollfd poller = { .fd = fake->sock, .events = POLLIN };
	ProtobufCMessage *message = NULL;
	struct wire *wire = NULL;
	int fds[3], n_fds = fake->mode == FAKE_NO_FDS ? 0 : 3;

	must(wire_new(&wire) == 0, "wire");
	must(poll(&poller, 1, -1) == 1, "poll");
	if (wire_recv(wire, fake->sock, &kamen__hello__descriptor, &message) != 1 ||
		fake->mode == FAKE_HANGS_UP) {
		wire_free(wire);
		return -1;
	}
	must(((Kamen__Hello *)message)->features == WIRE_RESUME, "features");
	must(((Kamen__Hello *)message)->layout == SHM_LAYOUT_VERSION, "layout");
	sizes_choose(fake, (Kamen__Hello *)message);
	wire_free(wire);
	regions_make(fake, fds);
	w.major = WIRE_MAJOR;
	if (fake->mode == FAKE_OTHER_MAJOR ||
		(fake->mode == FAKE_THEN_OTHER_MAJOR && fake->i_session > 0))
		w.major++;
	w.minor = WIRE_MINOR;
	w.has_n_slots = w.has_slot_bytes = w.has_results_bytes = w.has_frames_bytes = 1;
	w.n_slots = fake->n_slots;
	w.slot_bytes = fake->slot_bytes;
	w.results_bytes = shm_results_bytes(fake->n_slots);
	w.frames_bytes = shm_frames_bytes(fake->n_slots, fake->slot_bytes);
	if (fake->mode == FAKE_WRONG_SIZE)
		w.frames_bytes += SHM_PAGE;
	error.code = refusal(fake);
	error.text = (char *)"not you";
	if (error.code)
		w.error = &error;
	must(wire_send(fake->sock, &w.base, fds, (unsigned)n_fds) == 0, "welcome");
	(void)close(fds[0]);
	(void)close(fds[1]);
	return is_served(fake) ? 0 : -1;
}

/* A packet with so many descriptors, all of that file. */
static void packet_send(
	const struct fake *fake, const void *bytes, size_t n, int fd, unsigned n_fds)
{
	_Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(4 * sizeof(int))] = { 0 };
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
		for (unsigned i = 0; i < n_fds; i++)
			memcpy(CMSG_DATA(c) + i * sizeof(int), &fd, sizeof(fd));
	}
	(void)sendmsg(fake->sock, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void complete_silently(struct fake *fake, uint32_t slot, uint64_t id)
{
	struct shm_completion completion = { .slot = slot, .id = id };

	shm_ring_put(&fake->completions, &completion);
	shm_ring_publish(
		&fake->completions, &((struct shm_results_header *)fake->results)->completion_head);
}

static void complete(struct fake *fake, uint32_t slot, uint64_t id)
{
	complete_silently(fake, slot, id);
	packet_send(fake, "!", 1, -1, 0);
}

static void random_fill(uint8_t *bytes, size_t n, unsigned seed)
{
	uint64_t x = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;

	for (size_t i = 0; i < n; i++) {
		x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		bytes[i] = (uint8_t)(x >> 56);
	}
}

/* The result that is asked for, then its completion; by the seed's bits worse things beside it. */
static void scribble(struct fake *fake, const struct shm_request *q)
{
	struct shm_results_header *header = (struct shm_results_header *)fake->results;
	unsigned seed = q->version;
	size_t ring = fake->n_slots * sizeof(struct shm_completion);

	random_fill(fake->results + shm_results_offset(fake->n_slots) +
			    q->slot * sizeof(struct shm_result),
		sizeof(struct shm_result), seed);
	if (seed & 1)
		random_fill(
			fake->results, offsetof(struct shm_results_header, completion_head), seed);
	if (seed & 2)
		random_fill(fake->results + shm_completions_offset(), ring, seed);
	if (seed & 4)
		fake->completions.cursor += seed % fake->n_slots;
	complete(fake, q->slot, q->id);
	if (seed & 8)
		atomic_store(&header->submission_tail, seed * 0x9e3779b9u);
	if (seed & 16)
		atomic_store(&header->completion_head, seed * 0x9e3779b9u);
}

static void garbage_send(const struct fake *fake, unsigned seed, int fd)
{
	uint8_t bytes[80];
	size_t n = 2 + seed * 7 % (sizeof(bytes) - 2);

	random_fill(bytes, n, seed);
	packet_send(fake, bytes, n, fd, seed % 4);
}

/* What a daemon does that was replaced under the session, or one that gets it wrong. */
static void resume(struct fake *fake, unsigned how)
{
	Kamen__Resumed resumed = KAMEN__RESUMED__INIT;
	struct shm_results_header *header;
	uint8_t *old = fake->results;
	size_t n_bytes = shm_results_bytes(fake->n_slots), n;
	int fd = region(n_bytes, &fake->results);
	uint8_t bytes[128] = { 0 };

	must(munmap(old, n_bytes) == 0, "munmap");
	header = (struct shm_results_header *)fake->results;
	results_begin(fake, SHM_LAYOUT_VERSION + (how == RESUME_OLD_LAYOUT));
	fake->completions.entries = fake->results + shm_completions_offset();
	atomic_store(&header->submission_tail, fake->submissions.cursor);
	atomic_store(&header->completion_head,
		fake->completions.cursor + (how == RESUME_LIE ? 1000 : 0));
	if (how == RESUME_SHORT_FILE)
		must(ftruncate(fd, 4096) == 0, "ftruncate");
	resumed.generation = how == RESUME_SAME_GENERATION ? fake->generation : ++fake->generation;
	resumed.results_bytes = n_bytes + (how == RESUME_WRONG_SIZE ? SHM_PAGE : 0);
	n = kamen__resumed__pack(&resumed, bytes);
	if (how >= RESUME_GARBAGE)
		garbage_send(fake, how, fd);
	else
		packet_send(fake, bytes, how == RESUME_LONG_PACKET ? sizeof(bytes) : n, fd,
			how == RESUME_NO_FD      ? 0
			: how == RESUME_MORE_FDS ? 4
						 : 1);
	(void)close(fd);
}

static void answer(struct fake *fake, const struct shm_request *q)
{
	struct shm_result *result =
		(struct shm_result *)(fake->results + shm_results_offset(fake->n_slots)) + q->slot;
	const uint8_t *frame =
		fake->frames + shm_slot_offset(fake->n_slots, fake->slot_bytes, q->slot);

	memset(result, 0, sizeof(*result));
	result->id = q->id;
	result->trigger_id = q->trigger_id;
	result->part_id = q->part_id;
	result->capture_us = q->capture_us;
	result->encoder = q->encoder;
	result->deadline_ns = q->deadline_ns;
	result->verdict = SHM_OK;
	result->version = q->version;
	for (uint64_t i = 0; i < q->n_bytes; i++)
		result->checksum += frame[i];
	(void)snprintf(result->label, sizeof(result->label), "%.60s", q->site);
	result->score = .75f;
	result->unknown = .25f;
	if (q->flags & SHM_WANT_HARDNESS) {
		result->hardness_side = 2;
		result->n_hardness = 4;
	}
	if (q->flags & SHM_WANT_EMBEDDING) {
		const uint8_t *from = frame + (q->version == FAKE_OTHER_MASK ? 3 : 0);

		result->n_embedding = 3;
		for (unsigned i = 0; i < 3; i++)
			result->values[i] = (float)from[i];
	}
	for (unsigned i = 0; i < result->n_hardness; i++)
		result->values[result->n_embedding + i] = 10 + (float)i;
	if (q->part_id == PART_OVERFULL) {
		memset(result->label, 'l', sizeof(result->label));
		memset(result->reason, 'r', sizeof(result->reason));
		result->verdict = 1000;
		result->n_embedding = SHM_MAX_FEATURE + 1;
		result->hardness_side = 1u << 16;
		result->n_hardness = 0; /* its square, of 32 bits */
	}
	if (q->part_id == PART_TWICE)
		complete_silently(fake, q->slot, q->id);
	if (q->part_id == PART_ANSWER_RESUME)
		complete_silently(fake, q->slot, q->id);
	else
		complete(fake, q->slot, q->id);
}

/* 0: go on. */
static int act(struct fake *fake, const struct shm_request *q)
{
	if (q->part_id == PART_HELD || fake->mode == FAKE_LATE) {
		must(fake->n_held < SHM_MAX_SLOTS, "held");
		fake->held[fake->n_held++] = *q;
		return 0;
	}
	if (q->part_id == PART_SILENT) {
		fake->silent = *q;
		fake->has_silent = 1;
		return 0;
	}
	if (fake->has_silent)
		answer(fake, &fake->silent);
	fake->has_silent = 0;
	if (q->part_id == PART_LIE) {
		fake->completions.cursor += 1000;
		complete(fake, q->slot, q->id);
		return 0;
	}
	if (q->part_id == PART_STRANGER) {
		complete(fake, q->slot, q->id + 1);
		complete(fake, UINT32_MAX, q->id);
	}
	if (q->part_id == PART_BELL_FDS)
		packet_send(fake, "!", 1, fake->wake, 4);
	if (q->part_id == PART_SCRIBBLE) {
		scribble(fake, q);
		return 0;
	}
	if (q->part_id == PART_RESUME)
		resume(fake, q->version);
	if (q->part_id == PART_RESUME && q->version >= RESUME_SHORT_FILE)
		return 0;
	if (q->part_id == PART_DIE || (q->part_id == PART_DIE_ONCE && fake->i_session == 0))
		return 1;
	answer(fake, q);
	if (q->part_id == PART_ANSWER_RESUME)
		resume(fake, q->version);
	return q->part_id == PART_ANSWER_DIE;
}

static void release(struct fake *fake)
{
	for (unsigned i = 0; i < fake->n_held; i++)
		answer(fake, &fake->held[i]);
	fake->n_held = 0;
}

/* Milliseconds until the last of the held requests is well past its deadline. */
static int lateness_ms(const struct fake *fake)
{
	struct timespec ts;
	uint64_t now, last = 0;

	if (fake->mode != FAKE_LATE || fake->n_held == 0)
		return -1;
	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	now = (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
	for (unsigned i = 0; i < fake->n_held; i++)
		if (fake->held[i].deadline_ns > last)
			last = fake->held[i].deadline_ns;
	last += 100000000u;
	return last > now ? (int)((last - now) / 1000000u) + 1 : 0;
}

static void serve(struct fake *fake)
{
	struct shm_frames_header *frames = (struct shm_frames_header *)fake->frames;
	struct pollfd pollers[] = { { .fd = fake->doorbell, .events = POLLIN },
		{ .fd = fake->sock, .events = POLLIN }, { .fd = fake->wake, .events = POLLIN } };

	for (;;) {
		uint64_t n_rings;
		int n_events;
		int64_t n;
		char byte;

		n_events = poll(pollers, 3, lateness_ms(fake));
		must(n_events >= 0, "poll");
		if (n_events == 0)
			release(fake);
		(void)!read(fake->doorbell, &n_rings, sizeof(n_rings));
		for (n = shm_ring_ready(&fake->submissions, &frames->submission_head); n > 0; n--) {
			struct shm_request q;

			shm_ring_get(&fake->submissions, &q);
			shm_ring_publish(&fake->submissions,
				&((struct shm_results_header *)fake->results)->submission_tail);
			if (act(fake, &q))
				return;
		}
		if (pollers[1].revents && recv(fake->sock, &byte, 1, MSG_DONTWAIT) <= 0)
			return;
		if (pollers[2].revents && fake->n_held > 0) {
			(void)!read(fake->wake, &n_rings, sizeof(n_rings));
			release(fake);
		}
	}
}

static void session_end(struct fake *fake)
{
	(void)close(fake->sock);
	if (fake->results)
		(void)munmap(fake->results, shm_results_bytes(fake->n_slots));
	if (fake->frames)
		(void)munmap(fake->frames, shm_frames_bytes(fake->n_slots, fake->slot_bytes));
	if (fake->doorbell >= 0)
		(void)close(fake->doorbell);
	fake->results = fake->frames = NULL;
	fake->doorbell = -1;
	fake->n_held = 0;
	fake->has_silent = 0;
	fake->generation = 0;
}

static void *run(void *data)
{
	struct fake *fake = data;

	for (; fake->i_session < fake->n_sessions; fake->i_session++) {
		fake->sock = accept(fake->listener, NULL, NULL);
		must(fake->sock >= 0, "accept");
		if (welcome(fake) == 0)
			serve(fake);
		session_end(fake);
	}
	return NULL;
}

struct fake *fake_start(enum fake_mode mode)
{
	return fake_start_sessions(mode, 1);
}

struct fake *fake_start_sessions(enum fake_mode mode, unsigned n_sessions)
{
	struct fake *fake = calloc(1, sizeof(*fake));
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	must(fake != NULL, "calloc");
	fake->mode = mode;
	fake->n_sessions = n_sessions;
	fake->doorbell = -1;
	fake->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	(void)snprintf(fake->dir, sizeof(fake->dir), "/tmp/kamen-fake-XXXXXX");
	must(mkdtemp(fake->dir) != NULL, "mkdtemp");
	(void)snprintf(fake->path, sizeof(fake->path), "%s/data.sock", fake->dir);
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", fake->path);
	fake->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	must(bind(fake->listener, (struct sockaddr *)&address, sizeof(address)) == 0, "bind");
	must(listen(fake->listener, 1) == 0, "listen");
	must(pthread_create(&fake->thread, NULL, run, fake) == 0, "thread");
	return fake;
}

const char *fake_path(const struct fake *fake)
{
	return fake->path;
}

void fake_release(struct fake *fake)
{
	const uint64_t one = 1;

	must(write(fake->wake, &one, sizeof(one)) == sizeof(one), "wake");
}

void fake_stop(struct fake *fake)
{
	(void)pthread_join(fake->thread, NULL);
	(void)close(fake->wake);
	(void)close(fake->listener);
	(void)unlink(fake->path);
	(void)rmdir(fake->dir);
	free(fake);
}
