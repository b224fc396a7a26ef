/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/session_state.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "engine.h"

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static uint64_t mark_of(enum session_mark kind, uint32_t n)
{
	return (uint64_t)kind << 32 | n;
}

static enum session_mark kind_of(uint64_t mark)
{
	return (enum session_mark)(mark >> 32);
}

/*
 * Who is killed has done all that came before in his program, and nothing after: only the compiler
 * could change that order.
 */
static void set_mark(struct session_state_slot *slot, uint64_t mark)
{
	atomic_signal_fence(memory_order_seq_cst);
	atomic_store_explicit(&slot->mark, mark, memory_order_relaxed);
	atomic_signal_fence(memory_order_seq_cst);
}

static uint64_t get_mark(const struct session_state_slot *slot)
{
	return atomic_load_explicit(&slot->mark, memory_order_relaxed);
}

/* ---- the memory */

static int map(struct session_state **ret_state, int fd)
{
	void *at =
		mmap(NULL, sizeof(struct session_state), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (at == MAP_FAILED)
		return -errno;
	*ret_state = at;
	return 0;
}

int session_state_make(
	struct session_state **ret_state, int *ret_fd, uint32_t n_slots, uint64_t slot_bytes)
{
	_cleanup_(closep) int fd = -1;
	struct session_state *state = NULL;
	int r;

	fd = memfd_create("kamen-session", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0 || ftruncate(fd, sizeof(*state)) < 0 || fcntl(fd, F_ADD_SEALS, SEALS) < 0)
		return -errno;
	r = map(&state, fd);
	if (r < 0)
		return r;
	state->magic = SESSION_STATE_MAGIC;
	state->version = SESSION_STATE_VERSION;
	state->n_slots = n_slots;
	state->slot_bytes = slot_bytes;
	*ret_state = state;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static bool is_sound(const struct session_state *state)
{
	uint32_t n = state->n_slots;

	return state->magic == SESSION_STATE_MAGIC && state->version == SESSION_STATE_VERSION &&
	       n > 0 && n <= SHM_MAX_SLOTS && (n & (n - 1)) == 0 && state->slot_bytes > 0 &&
	       state->slot_bytes <= SHM_MAX_SLOT_BYTES;
}

int session_state_map(struct session_state **ret_state, int fd)
{
	struct session_state *state = NULL;
	struct stat st;
	int r;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (st.st_size != sizeof(*state) || (fcntl(fd, F_GET_SEALS) & SEALS) != SEALS)
		return -EBADMSG;
	r = map(&state, fd);
	if (r < 0)
		return r;
	if (!is_sound(state)) {
		session_state_unmap(state);
		return -EBADMSG;
	}
	*ret_state = state;
	return 0;
}

void session_state_unmap(struct session_state *state)
{
	if (state)
		(void)munmap(state, sizeof(*state));
}

/* ---- as the session lives */

void session_state_take(struct session_state *state, const struct shm_request *request,
	uint64_t received_ns, uint32_t n_taken)
{
	struct session_state_slot *slot = &state->slots[request->slot];

	slot->request = *request;
	/* The client wrote here, if anybody. */
	slot->request.reserved[0] = 0;
	slot->received_ns = received_ns;
	set_mark(slot, mark_of(SESSION_TAKEN, n_taken));
	atomic_store_explicit(&state->n_taken, n_taken, memory_order_relaxed);
	atomic_signal_fence(memory_order_seq_cst);
}

void session_state_answer(struct session_state *state, uint32_t slot, uint32_t n_answered)
{
	set_mark(&state->slots[slot], mark_of(SESSION_ANSWERED, n_answered));
}

void session_state_free(struct session_state *state, uint32_t slot)
{
	set_mark(&state->slots[slot], mark_of(SESSION_FREE, 0));
}

/* ---- after a restart */

bool session_state_try(struct session_state *state, uint32_t slot)
{
	uint32_t *n = &state->slots[slot].request.reserved[0];

	if (*n + 1 >= SESSION_STATE_MOST_RUNS)
		return false;
	++*n;
	/* Before anything is done that may be our end. */
	atomic_signal_fence(memory_order_seq_cst);
	return true;
}

/* Cursors wrap: how long ago it was taken orders them. */
static void insert(const struct session_state *state, struct session_recovery *recovery,
	uint32_t slot, uint32_t n_taken)
{
	uint32_t age = n_taken - (uint32_t)get_mark(&state->slots[slot]);
	uint32_t at = recovery->n++;

	for (; at > 0; at--) {
		uint32_t other = recovery->slots[at - 1];

		if (n_taken - (uint32_t)get_mark(&state->slots[other]) >= age)
			break;
		recovery->slots[at] = other;
	}
	recovery->slots[at] = slot;
}

/* The one step that a kill may have left half done on either side. */
static int find_cursors(const struct session_state *state, struct session_recovery *recovery)
{
	uint32_t n_taken = recovery->n_taken, n_answered = recovery->n_answered;
	unsigned n_ahead = 0, n_unpublished = 0;

	for (uint32_t i = 0; i < state->n_slots; i++) {
		uint64_t mark = get_mark(&state->slots[i]);
		uint32_t n = (uint32_t)mark;

		switch (kind_of(mark)) {
		case SESSION_FREE:
			break;
		case SESSION_TAKEN:
			if (state->slots[i].request.slot != i)
				return -EBADMSG;
			n_ahead += n == n_taken + 1;
			break;
		case SESSION_ANSWERED:
			if (n != n_answered && n != n_answered + 1)
				return -EBADMSG;
			n_unpublished += n == n_answered + 1;
			break;
		default:
			return -EBADMSG;
		}
	}
	if (n_ahead > 1 || n_unpublished > 1)
		return -EBADMSG;
	recovery->n_taken += n_ahead;
	recovery->n_answered += n_unpublished;
	return 0;
}

int session_state_recover(const struct session_state *state, uint32_t completion_head,
	struct session_recovery *ret_recovery)
{
	struct session_recovery recovery = {
		.n_taken = atomic_load_explicit(&state->n_taken, memory_order_relaxed),
		.n_answered = completion_head,
	};
	int r = find_cursors(state, &recovery);

	if (r < 0)
		return r;
	for (uint32_t i = 0; i < state->n_slots; i++)
		if (kind_of(get_mark(&state->slots[i])) == SESSION_TAKEN)
			insert(state, &recovery, i, recovery.n_taken);
	*ret_recovery = recovery;
	return 0;
}

void session_state_resume(
	struct session_state *state, const struct session_recovery *recovery, uint32_t generation)
{
	atomic_signal_fence(memory_order_seq_cst);
	atomic_store_explicit(&state->generation, generation, memory_order_relaxed);
	atomic_signal_fence(memory_order_seq_cst);
	atomic_store_explicit(&state->n_taken, recovery->n_taken, memory_order_relaxed);
	for (uint32_t i = 0; i < state->n_slots; i++)
		if (kind_of(get_mark(&state->slots[i])) == SESSION_ANSWERED)
			session_state_free(state, i);
}
