/* SPDX-License-Identifier: Apache-2.0 */
#include "liar.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "load.h"

static const struct fault *const tables[] = { region_faults, ring_faults, request_faults,
	socket_faults, control_faults };

const struct fault *liar_fault(unsigned number)
{
	for (unsigned t = 0; t < sizeof(tables) / sizeof(tables[0]); t++)
		for (const struct fault *fault = tables[t]; fault->name; fault++)
			if (number-- == 0)
				return fault;
	return NULL;
}

/* splitmix64 (Vigna 2015) */
uint64_t liar_random(struct liar *liar)
{
	uint64_t z = (liar->random += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

uint64_t liar_below(struct liar *liar, uint64_t n)
{
	return liar_random(liar) % n;
}

void liar_noise(struct liar *liar, void *to, size_t n_bytes)
{
	uint8_t *at = to;

	while (n_bytes > 0) {
		size_t from = liar_below(liar, LIAR_SCRATCH / 2);
		size_t n = n_bytes < LIAR_SCRATCH / 2 ? n_bytes : LIAR_SCRATCH / 2;

		memcpy(at, liar->scratch + from, n);
		at += n;
		n_bytes -= n;
	}
}

struct peer *liar_peer(struct liar *liar)
{
	static const uint32_t slots[] = { 1, 2, 4, 8, 8, 16, 64 };
	static const uint64_t bytes[] = { 4096, 65536, 65536, 1 << 20, 4 << 20 };
	struct peer *peer = &liar->peer;

	if (peer_is_open(peer) && (peer_drain(peer) < 0 || liar_below(liar, 40) == 0))
		peer_close(peer);
	for (int i = 0; i < 50 && !peer_is_open(peer); i++) {
		int r = peer_open(peer, liar->wire, liar->world->data_path,
			slots[liar_below(liar, 7)], bytes[liar_below(liar, 5)],
			(int)liar->world->patience_ms);

		if (r == -ETIMEDOUT) {
			world_note(
				liar->world, VIOLATION_HANG, "liar %u: no welcome", liar->number);
			break;
		}
		/* Others of its kind have all its places. */
		if (r < 0)
			(void)nanosleep(&(const struct timespec){ 0, 1000000 }, NULL);
	}
	return peer_is_open(peer) ? peer : NULL;
}

void liar_settle(struct liar *liar)
{
	struct peer *peer = &liar->peer;
	const struct shm_result *result;

	while (peer_is_open(peer) && peer->busy != 0) {
		int r = peer_wait(peer, (int)liar->world->patience_ms, &result);

		if (r == 0)
			world_note(liar->world, VIOLATION_HANG,
				"fault %llu, %s: neither an answer nor an end",
				(unsigned long long)liar->fault, liar->kind->name);
		if (r <= 0)
			peer_close(peer);
	}
}

int liar_slot(struct liar *liar)
{
	int slot = peer_free_slot(&liar->peer);

	if (slot < 0) {
		liar_settle(liar);
		slot = peer_is_open(&liar->peer) ? 0 : -1;
	}
	return slot;
}

struct shm_request liar_request(struct liar *liar, uint32_t verb, int slot, uint64_t n_bytes)
{
	struct shm_request request = { .verb = verb,
		.slot = (uint32_t)slot,
		.n_bytes = n_bytes,
		.trigger_id = liar_random(liar),
		.flags = SHM_WANT_EMBEDDING };

	peer_name_site(&request, liar_below(liar, 2) ? "liar" : "honest");
	return request;
}

void liar_die(struct liar *liar, void (*run)(struct liar *liar))
{
	pid_t pid = fork();

	if (pid == 0) {
		run(liar);
		(void)raise(SIGKILL);
		_exit(1);
	}
	if (pid > 0)
		(void)waitpid(pid, NULL, 0);
}

void liar_breach(struct liar *liar, const char *what)
{
	world_note(liar->world, VIOLATION_BREACH, "liar %u: %s", liar->number, what);
}

void liar_send(int sock, const void *data, size_t n_bytes, const int *fds, unsigned n_fds)
{
	union {
		char bytes[CMSG_SPACE(253 * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { (void *)(uintptr_t)data, n_bytes };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (n_fds > 0) {
		struct cmsghdr *cmsg = &control.align;

		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(cmsg), fds, n_fds * sizeof(int));
		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
	}
	(void)sendmsg(sock, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static bool is_through(const struct world *world)
{
	return atomic_load(&world->next_fault) >= world->n_faults;
}

/* In a quiet phase it holds nothing at all. */
static void park(struct liar *liar)
{
	struct world *world = liar->world;
	int phase;

	peer_close(&liar->peer);
	(void)atomic_fetch_add(&world->n_parked, 1);
	do {
		(void)nanosleep(&(const struct timespec){ 0, 2000000 }, NULL);
		phase = atomic_load(&world->phase);
	} while (phase == PHASE_WARM || phase == PHASE_QUIET ||
		 (phase == PHASE_STORM && is_through(world)));
	(void)atomic_fetch_sub(&world->n_parked, 1);
}

static unsigned pick(struct liar *liar)
{
	const struct fault *fault;
	unsigned total = 0;
	uint64_t at;

	if (liar->world->only >= 0)
		return (unsigned)liar->world->only;
	for (unsigned i = 0; (fault = liar_fault(i)); i++)
		total += fault->weight;
	at = liar_below(liar, total);
	for (unsigned i = 0; (fault = liar_fault(i)); i++) {
		if (at < fault->weight)
			return i;
		at -= fault->weight;
	}
	return 0;
}

static void run_one(struct liar *liar, uint64_t number)
{
	struct world *world = liar->world;
	unsigned kind;

	liar->random = world->seed ^ (number * UINT64_C(0xd1342543de82ef95));
	kind = pick(liar);
	atomic_store(&world->at[liar->number], number | (uint64_t)kind << 56);
	liar->fault = number;
	liar->kind = liar_fault(kind);
	liar->kind->run(liar);
	(void)atomic_fetch_add(&world->n_of_fault[kind], 1);
	(void)atomic_fetch_add(&world->n_done, 1);
	if (world->pause_ms > 0)
		(void)nanosleep(&(const struct timespec){ world->pause_ms / 1000,
					(long)(world->pause_ms % 1000) * 1000000 },
			NULL);
}

static void storm(struct liar *liar)
{
	struct world *world = liar->world;
	const struct load begin = load_now();

	while (atomic_load(&world->phase) == PHASE_STORM) {
		uint64_t fault = atomic_fetch_add(&world->next_fault, 1);

		if (fault >= world->n_faults)
			break;
		run_one(liar, fault);
	}
	load_add(&world->storm_load[liar->number], &begin);
}

/* As much of the CPUs as its storms took, and nothing for the daemon to do. */
static void burn(struct liar *liar)
{
	struct world *world = liar->world;
	const struct load begin = load_now();

	peer_close(&liar->peer);
	while (atomic_load(&world->phase) == PHASE_BARE)
		load_burn(&world->storm_load[liar->number]);
	load_add(&world->bare_load[liar->number], &begin);
}

static void raise_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max < 8192 ? limit.rlim_max : 8192;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
}

void liar_main(struct world *world, unsigned number)
{
	struct liar liar = { .world = world, .number = number };
	int phase;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)prctl(PR_SET_NAME, "liar");
	raise_limit();
	liar.scratch = malloc(LIAR_SCRATCH);
	if (!liar.scratch || wire_new(&liar.wire) < 0)
		_exit(1);
	liar.peer.sock = liar.peer.results_fd = liar.peer.frames_fd = liar.peer.bell = -1;
	liar.random = world->seed;
	for (size_t i = 0; i < LIAR_SCRATCH; i += 8) {
		uint64_t word = liar_random(&liar);

		memcpy(liar.scratch + i, &word, sizeof(word));
	}
	while ((phase = atomic_load(&world->phase)) != PHASE_END) {
		if (phase == PHASE_BARE)
			burn(&liar);
		else if (phase == PHASE_STORM && !is_through(world))
			storm(&liar);
		else
			park(&liar);
	}
	peer_close(&liar.peer);
	wire_free(liar.wire);
	free(liar.scratch);
	_exit(0);
}
