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
	int listener, sock, doorbell;
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

static void regions_make(struct fake *fake, int fds[3])
{
	struct shm_results_header *results;
	struct shm_frames_header *frames;

	fds[0] = region(shm_results_bytes(fake->n_slots), &fake->results);
	fds[1] = region(shm_frames_bytes(fake->n_slots, fake->slot_bytes), &fake->frames);
	fds[2] = fake->doorbell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	results = (struct shm_results_header *)fake->results;
	frames = (struct shm_frames_header *)fake->frames;
	results->magic = SHM_RESULTS_MAGIC;
	frames->magic = SHM_FRAMES_MAGIC;
	results->version = frames->version = SHM_LAYOUT_VERSION + (fake->mode == FAKE_OLD_LAYOUT);
	results->n_slots = frames->n_slots = fake->n_slots;
	results->slot_bytes = frames->slot_bytes = fake->slot_bytes;
	fake->submissions = (struct shm_ring){ fake->frames + shm_submissions_offset(),
		sizeof(struct shm_request), fake->n_slots, 0 };
	fake->completions = (struct shm_ring){ fake->results + shm_completions_offset(),
		sizeof(struct shm_completion), fake->n_slots, 0 };
	if (fake->mode == FAKE_SHORT_FILE)
		must(ftruncate(fds[1], 4096) == 0, "ftruncate");
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
	fake->n_slots = ((Kamen__Hello *)message)->n_slots;
	fake->slot_bytes = ((Kamen__Hello *)message)->slot_bytes;
	wire_free(wire);
	regions_make(fake, fds);
	w.major = fake->mode == FAKE_OTHER_MAJOR ? WIRE_MAJOR + 1 : WIRE_MAJOR;
	w.minor = WIRE_MINOR;
	w.has_n_slots = w.has_slot_bytes = w.has_results_bytes = w.has_frames_bytes = 1;
	w.n_slots = fake->n_slots;
	w.slot_bytes = fake->slot_bytes;
	w.results_bytes = shm_results_bytes(fake->n_slots);
	w.frames_bytes = shm_frames_bytes(fake->n_slots, fake->slot_bytes);
	if (fake->mode == FAKE_WRONG_SIZE)
		w.frames_bytes += SHM_PAGE;
	error.code = -EUSERS;
	error.text = (char *)"enough clients";
	if (fake->mode == FAKE_FULL)
		w.error = &error;
	must(wire_send(fake->sock, &w.base, fds, (unsigned)n_fds) == 0, "welcome");
	(void)close(fds[0]);
	(void)close(fds[1]);
	return fake->mode == FAKE_HONEST || fake->mode == FAKE_LATE ? 0 : -1;
}

static void complete(struct fake *fake, uint32_t slot, uint64_t id)
{
	struct shm_completion completion = { .slot = slot, .id = id };

	shm_ring_put(&fake->completions, &completion);
	shm_ring_publish(
		&fake->completions, &((struct shm_results_header *)fake->results)->completion_head);
	(void)send(fake->sock, "!", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
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
	result->verdict = SHM_OK;
	result->version = q->version;
	for (uint64_t i = 0; i < q->n_bytes; i++)
		result->checksum += frame[i];
	(void)snprintf(result->label, sizeof(result->label), "%.60s", q->site);
	if (q->flags & SHM_WANT_EMBEDDING) {
		const uint8_t *from = frame + (q->version == FAKE_OTHER_MASK ? 3 : 0);

		result->n_embedding = 3;
		for (unsigned i = 0; i < 3; i++)
			result->embedding[i] = (float)from[i];
	}
	if (q->part_id == PART_OVERFULL) {
		memset(result->label, 'l', sizeof(result->label));
		memset(result->reason, 'r', sizeof(result->reason));
		result->verdict = 1000;
		result->n_embedding = SHM_MAX_EMBEDDING + 1;
	}
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
	if (q->part_id != PART_DIE)
		answer(fake, q);
	return q->part_id == PART_DIE || q->part_id == PART_ANSWER_DIE;
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
	struct shm_results_header *results = (struct shm_results_header *)fake->results;
	struct pollfd pollers[] = { { .fd = fake->doorbell, .events = POLLIN },
		{ .fd = fake->sock, .events = POLLIN } };

	for (;;) {
		uint64_t n_rings;
		int n_events;
		int64_t n;
		char byte;

		n_events = poll(pollers, 2, lateness_ms(fake));
		must(n_events >= 0, "poll");
		if (n_events == 0)
			release(fake);
		(void)!read(fake->doorbell, &n_rings, sizeof(n_rings));
		for (n = shm_ring_ready(&fake->submissions, &frames->submission_head); n > 0; n--) {
			struct shm_request q;

			shm_ring_get(&fake->submissions, &q);
			shm_ring_publish(&fake->submissions, &results->submission_tail);
			if (act(fake, &q))
				return;
		}
		if (pollers[1].revents && recv(fake->sock, &byte, 1, MSG_DONTWAIT) <= 0)
			return;
		if (pollers[1].revents)
			release(fake);
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
}

static void *run(void *data)
{
	struct fake *fake = data;

	for (unsigned i = 0; i < fake->n_sessions; i++) {
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
	(void)strcpy(fake->dir, "/tmp/kamen-fake-XXXXXX");
	must(mkdtemp(fake->dir) != NULL, "mkdtemp");
	(void)snprintf(fake->path, sizeof(fake->path), "%s/data.sock", fake->dir);
	(void)strcpy(address.sun_path, fake->path);
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

void fake_stop(struct fake *fake)
{
	(void)pthread_join(fake->thread, NULL);
	(void)close(fake->listener);
	(void)unlink(fake->path);
	(void)rmdir(fake->dir);
	free(fake);
}
