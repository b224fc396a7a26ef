/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/session.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

static int make_region(const char *name, size_t n_bytes)
{
	_cleanup_(closep) int fd = -1;

	fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)n_bytes) < 0)
		return -errno;
	return TAKE_FD(fd);
}

static int seal(int fd, int seals)
{
	return fcntl(fd, F_ADD_SEALS, seals) < 0 ? -errno : 0;
}

static int make_results(struct session_shm *shm)
{
	struct shm_results_header *header;
	void *at;

	shm->results_bytes = shm_results_bytes(shm->n_slots);
	shm->results_fd = make_region("kamen-results", shm->results_bytes);
	if (shm->results_fd < 0)
		return shm->results_fd;
	at = mmap(NULL, shm->results_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, shm->results_fd, 0);
	if (at == MAP_FAILED)
		return -errno;
	shm->results = at;
	header = at;
	header->magic = SHM_RESULTS_MAGIC;
	header->version = SHM_LAYOUT_VERSION;
	header->n_slots = shm->n_slots;
	header->slot_bytes = shm->slot_bytes;
	shm->completions = (struct shm_ring){ shm->results + shm_completions_offset(),
		sizeof(struct shm_completion), shm->n_slots, 0 };
	/* FUTURE_WRITE spares the mapping that exists: it has to come after mmap(). */
	return seal(
		shm->results_fd, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL);
}

static int write_frames_header(const struct session_shm *shm)
{
	const struct shm_frames_header header = {
		.magic = SHM_FRAMES_MAGIC,
		.version = SHM_LAYOUT_VERSION,
		.n_slots = shm->n_slots,
		.slot_bytes = shm->slot_bytes,
	};

	if (pwrite(shm->frames_fd, &header, sizeof(header), 0) != (ssize_t)sizeof(header))
		return -EIO;
	return 0;
}

static int make_frames(struct session_shm *shm)
{
	void *at;
	int r;

	shm->frames_bytes = shm_frames_bytes(shm->n_slots, shm->slot_bytes);
	shm->frames_fd = make_region("kamen-frames", shm->frames_bytes);
	if (shm->frames_fd < 0)
		return shm->frames_fd;
	r = write_frames_header(shm);
	if (r < 0)
		return r;
	at = mmap(NULL, shm->frames_bytes, PROT_READ, MAP_SHARED, shm->frames_fd, 0);
	if (at == MAP_FAILED)
		return -errno;
	shm->frames = at;
	/* The ring only reads here; its type is shared with the side that writes. */
	shm->submissions = (struct shm_ring){ (uint8_t *)at + shm_submissions_offset(),
		sizeof(struct shm_request), shm->n_slots, 0 };
	return seal(shm->frames_fd, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
}

int session_shm_make(struct session_shm *shm, uint32_t n_slots, uint64_t slot_bytes)
{
	int r;

	shm->n_slots = n_slots;
	shm->slot_bytes = slot_bytes;
	shm->doorbell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (shm->doorbell < 0)
		return -errno;
	r = make_results(shm);
	if (r < 0)
		return r;
	return make_frames(shm);
}

void session_shm_done(struct session_shm *shm)
{
	if (shm->results)
		(void)munmap(shm->results, shm->results_bytes);
	if (shm->frames)
		(void)munmap((void *)shm->frames, shm->frames_bytes);
	closep(&shm->results_fd);
	closep(&shm->frames_fd);
	closep(&shm->doorbell);
	*shm = (struct session_shm){ .results_fd = -1, .frames_fd = -1, .doorbell = -1 };
}

int session_shm_take(struct session_shm *shm, struct shm_request *ret_request)
{
	const struct shm_frames_header *header = (const void *)shm->frames;
	int64_t n = shm_ring_ready(&shm->submissions, &header->submission_head);

	if (n < 0)
		return -EBADMSG;
	if (n == 0)
		return 0;
	shm_ring_get(&shm->submissions, ret_request);
	return 1;
}

void session_shm_taken(struct session_shm *shm)
{
	struct shm_results_header *header = (void *)shm->results;

	shm_ring_publish(&shm->submissions, &header->submission_tail);
}

const uint8_t *session_shm_slot(const struct session_shm *shm, uint32_t slot)
{
	return shm->frames + shm_slot_offset(shm->n_slots, shm->slot_bytes, slot);
}

struct shm_result *session_shm_result(const struct session_shm *shm, uint32_t slot)
{
	return (struct shm_result *)(shm->results + shm_results_offset(shm->n_slots)) + slot;
}

bool session_shm_waits(const struct session_shm *shm)
{
	const struct shm_frames_header *header = (const void *)shm->frames;

	return shm_ring_ready(&shm->submissions, &header->submission_head) != 0;
}

void session_shm_look_begin(struct session_shm *shm)
{
	shm_awake_begin(&((struct shm_results_header *)(void *)shm->results)->daemon_awake);
}

void session_shm_look_end(struct session_shm *shm)
{
	shm_awake_end(&((struct shm_results_header *)(void *)shm->results)->daemon_awake);
}

bool session_shm_complete(struct session_shm *shm, uint32_t slot, uint64_t id)
{
	const struct shm_frames_header *frames = (const void *)shm->frames;
	struct shm_results_header *header = (void *)shm->results;
	const struct shm_completion completion = { .slot = slot, .id = id };

	shm_ring_put(&shm->completions, &completion);
	return shm_ring_announce(
		&shm->completions, &header->completion_head, &frames->client_awake);
}
