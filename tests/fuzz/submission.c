/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "engine.h"
#include "serve/session.h"
#include "serve/submission.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

/* What the client sees of a session, and the daemon's side of it. */
struct ring {
	struct session_shm shm;
	uint8_t *frames; /* writable */
};

static void ring_open(struct ring *ring, uint8_t shape)
{
	static const uint32_t slots[] = { 1, 2, 8, 64 };
	static const uint64_t bytes[] = { 4096, 65536 };

	ring->shm = SESSION_SHM_NONE;
	if (session_shm_make(&ring->shm, slots[shape & 3], bytes[shape >> 2 & 1]) < 0)
		abort();
	ring->frames = mmap(NULL, ring->shm.frames_bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
		ring->shm.frames_fd, 0);
	if (ring->frames == MAP_FAILED)
		abort();
}

static void ring_close(struct ring *ring)
{
	(void)munmap(ring->frames, ring->shm.frames_bytes);
	session_shm_done(&ring->shm);
}

/* Every byte that the daemon would read of what it has let pass: a fault or a sanitizer tells. */
static void read_it(const struct ring *ring, const struct shm_request *wire)
{
	const uint8_t *slot = session_shm_slot(&ring->shm, wire->slot);
	size_t row = (size_t)wire->width * shm_n_channels(wire->format);
	const uint8_t *last = slot + wire->n_bytes;

	if (wire->n_bytes > ring->shm.slot_bytes ||
		last > ring->shm.frames + ring->shm.frames_bytes)
		abort();
	(void)digest_checksum(slot, wire->n_bytes);
	if (wire->verb == SHM_ECHO || wire->format == SHM_ENCODED)
		return;
	for (uint32_t y = 0; y < wire->height; y++) {
		const uint8_t *at = slot + (size_t)y * wire->stride;

		if (at + row > last || row == 0)
			abort();
		(void)*(const volatile uint8_t *)(at + row - 1);
	}
}

/* As session.c does it. False: the session ends. */
static bool take_all(struct ring *ring)
{
	struct shm_request wire;
	const char *wrong;
	int r, code = 0;

	for (uint32_t i = 0; i < ring->shm.n_slots; i++) {
		r = session_shm_take(&ring->shm, &wire);
		if (r <= 0)
			return r == 0;
		if (wire.slot >= ring->shm.n_slots)
			return false;
		submission_complete(&wire);
		session_shm_taken(&ring->shm, &wire, 1);
		if (memchr(wire.site, 0, sizeof(wire.site)) == NULL)
			abort();
		wrong = submission_check(&wire, ring->shm.slot_bytes, &code);
		if (!wrong)
			read_it(ring, &wire);
		else if (code >= 0 || strlen(wrong) >= SHM_REASON_CHARS)
			abort();
		memset(session_shm_result(&ring->shm, wire.slot), 0, sizeof(struct shm_result));
		(void)session_shm_complete(&ring->shm, wire.slot, wire.id);
	}
	return true;
}

/*
 * The first byte is the shape of the ring; then come commands of the client: 0 writes an entry, whose
 * bytes follow, and submits it; 1 sets the cursor to what follows; 2 writes anywhere in the header and
 * the ring; 3 lets the daemon look.
 */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
	struct shm_frames_header *header;
	struct ring ring;
	uint32_t head = 0;
	size_t at = 1;
	bool goes_on = true;

	if (n_bytes < 1)
		return 0;
	ring_open(&ring, data[0]);
	header = (void *)ring.frames;
	while (at < n_bytes && goes_on) {
		uint8_t command = data[at++] & 3;
		size_t left = n_bytes - at,
		       n = left < sizeof(struct shm_request) ? left : sizeof(struct shm_request);

		if (command == 0) {
			memcpy(ring.frames + shm_submissions_offset() +
					(head % ring.shm.n_slots) * sizeof(struct shm_request),
				data + at, n);
			atomic_store(&header->submission_head, ++head);
			at += n;
		} else if (command == 1 && left >= sizeof(head)) {
			memcpy(&head, data + at, sizeof(head));
			atomic_store(&header->submission_head, head);
			at += sizeof(head);
		} else if (command == 2 && left >= 4) {
			size_t where = data[at] | (size_t)data[at + 1] << 8;

			memcpy(ring.frames + where % (shm_slots_offset(ring.shm.n_slots) - 2),
				data + at + 2, 2);
			head = atomic_load(&header->submission_head);
			at += 4;
		}
		goes_on = take_all(&ring);
	}
	ring_close(&ring);
	return 0;
}
