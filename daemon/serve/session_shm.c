/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/session.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define FRAMES_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
#define RESULTS_SEALS (FRAMES_SEALS | F_SEAL_FUTURE_WRITE)

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
	return seal(shm->results_fd, RESULTS_SEALS);
}

static void find_submissions(struct session_shm *shm)
{
	/* The ring only reads here; its type is shared with the side that writes. */
	shm->submissions = (struct shm_ring){ (uint8_t *)shm->frames + shm_submissions_offset(),
		sizeof(struct shm_request), shm->n_slots, 0 };
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
	find_submissions(shm);
	return seal(shm->frames_fd, FRAMES_SEALS);
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

int session_shm_keep(struct session_shm *shm)
{
	return session_state_make(&shm->state, &shm->state_fd, shm->n_slots, shm->slot_bytes);
}

void session_shm_private(struct session_shm *shm)
{
	closep(&shm->results_fd);
	closep(&shm->frames_fd);
	shm->results_fd = shm->frames_fd = -1;
}

/* ---- one that an earlier process has made */

static int map_region(int fd, size_t n_bytes, int seals, const uint8_t **ret_region)
{
	struct stat st;
	void *at;

	if (fstat(fd, &st) < 0)
		return -errno;
	if ((uint64_t)st.st_size != n_bytes || (fcntl(fd, F_GET_SEALS) & seals) != seals)
		return -EBADMSG;
	at = mmap(NULL, n_bytes, PROT_READ, MAP_SHARED, fd, 0);
	if (at == MAP_FAILED)
		return -errno;
	*ret_region = at;
	return 0;
}

static bool is_ours(const struct session_shm *shm, const uint8_t *results)
{
	const struct shm_results_header *header = (const void *)results;

	return header->magic == SHM_RESULTS_MAGIC && header->version == SHM_LAYOUT_VERSION &&
	       header->n_slots == shm->n_slots && header->slot_bytes == shm->slot_bytes;
}

/* All of it, with what is published there already: a client that has not seen the old region to its
 * end finds the same here. */
static int go_on(struct session_shm *shm, const uint8_t *old, struct session_recovery *recovery)
{
	const struct shm_results_header *was = (const void *)old;
	struct shm_results_header *header;
	int r;

	if (!is_ours(shm, old))
		return -EBADMSG;
	r = session_state_recover(shm->state,
		atomic_load_explicit(&was->completion_head, memory_order_relaxed), recovery);
	if (r < 0)
		return r;
	r = make_results(shm);
	if (r < 0)
		return r;
	memcpy(shm->results + sizeof(*header), old + sizeof(*header),
		shm->results_bytes - sizeof(*header));
	header = (void *)shm->results;
	shm->submissions.cursor = recovery->n_taken;
	shm->completions.cursor = recovery->n_answered;
	shm_ring_publish(&shm->submissions, &header->submission_tail);
	shm_ring_publish(&shm->completions, &header->completion_head);
	return 0;
}

int session_shm_resume(
	struct session_shm *shm, int old_results_fd, struct session_recovery *ret_recovery)
{
	const uint8_t *old = NULL;
	size_t n_bytes;
	int r;

	shm->n_slots = shm->state->n_slots;
	shm->slot_bytes = shm->state->slot_bytes;
	shm->frames_bytes = shm_frames_bytes(shm->n_slots, shm->slot_bytes);
	r = map_region(shm->frames_fd, shm->frames_bytes, FRAMES_SEALS, &shm->frames);
	if (r < 0)
		return r;
	find_submissions(shm);
	n_bytes = shm_results_bytes(shm->n_slots);
	r = map_region(old_results_fd, n_bytes, RESULTS_SEALS, &old);
	if (r < 0)
		return r;
	r = go_on(shm, old, ret_recovery);
	(void)munmap((void *)old, n_bytes);
	return r;
}

bool session_shm_done_part(struct session_shm *shm)
{
	bool has_more = shm->frames && hand_unmap_piece((void *)shm->frames, &shm->frames_bytes);

	if (has_more)
		return true;
	shm->frames = NULL;
	/* The last one frees the pages, unless the client has them still. */
	closep(&shm->frames_fd);
	shm->frames_fd = -1;
	return false;
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
	session_state_unmap(shm->state);
	closep(&shm->state_fd);
	*shm = SESSION_SHM_NONE;
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

void session_shm_taken(
	struct session_shm *shm, const struct shm_request *request, uint64_t received_ns)
{
	struct shm_results_header *header = (void *)shm->results;

	if (shm->state)
		session_state_take(shm->state, request, received_ns, shm->submissions.cursor);
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
	bool wants_bell;

	shm_ring_put(&shm->completions, &completion);
	if (shm->state)
		session_state_answer(shm->state, slot, shm->completions.cursor);
	wants_bell = shm_ring_announce(
		&shm->completions, &header->completion_head, &frames->client_awake);
	if (shm->state)
		session_state_free(shm->state, slot);
	return wants_bell;
}
