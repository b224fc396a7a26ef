/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "base/digest.h"
#include "fixture/flaw.h"
#include "ops/slice.h"
#include "peer.h"
#include "world.h"

enum { N_IMAGES = 8, RECONNECT_EVERY = 256, PAUSE_NS = 3000000 };
#define PIXEL_BYTES (FLAW_SIDE * FLAW_SIDE * 3u)
/* Batches of other sizes may add in another order; other images are far away. */
#define MAX_DIFFERENCE 1e-3

/* One client that does what the protocol says, and looks at every answer. */
struct honest {
	struct world *world;
	enum honest_kind kind;
	unsigned number;
	struct wire *wire;
	struct peer peer;
	uint64_t n_asked;
	uint8_t pixels[N_IMAGES][PIXEL_BYTES];
	float want[N_IMAGES][SHM_MAX_EMBEDDING];
	uint32_t n_want[N_IMAGES]; /* 0: not asked yet, nobody disturbs then */
};

static bool connect_again(struct honest *honest)
{
	struct world *world = honest->world;
	uint64_t end = clock_now_ns() + (uint64_t)world->patience_ms * 1000000;
	int r;

	peer_close(&honest->peer);
	do {
		r = peer_open(&honest->peer, honest->wire, world->data_path, 2, 1 << 16,
			(int)world->patience_ms);
		/* The same user's liars may have all its places for the moment. */
		if (r < 0 && world->is_other)
			break;
		if (r < 0)
			(void)nanosleep(&(const struct timespec){ 0, 1000000 }, NULL);
	} while (r < 0 && clock_now_ns() < end);
	honest->peer.needs_bells = true;
	if (r == -ETIMEDOUT)
		world_note(world, VIOLATION_HANG, "honest %u: no welcome", honest->number);
	else if (r < 0)
		world_note(world, VIOLATION_LOST, "honest %u cannot connect: %s", honest->number,
			strerror(-r));
	return r >= 0;
}

static void fill_echo(struct honest *honest, struct shm_request *request)
{
	uint8_t *slot = peer_slot(&honest->peer, request->slot);

	request->verb = SHM_ECHO;
	request->n_bytes = 4096;
	for (uint32_t i = 0; i < 4096; i += 8) {
		uint64_t word = (honest->n_asked * 512 + i) * UINT64_C(0x9e3779b97f4a7c15);

		memcpy(slot + i, &word, sizeof(word));
	}
}

static void fill_image(struct honest *honest, struct shm_request *request, unsigned image)
{
	uint8_t *slot = peer_slot(&honest->peer, request->slot);
	int n = 0;

	request->verb = SHM_INFER;
	request->flags = SHM_WANT_EMBEDDING;
	peer_name_site(request, "honest");
	if (honest->kind == HONEST_ENCODED)
		n = snprintf((char *)slot, 32, "P6 %u %u 255\n", FLAW_SIDE, FLAW_SIDE);
	else
		request->format = SHM_RGB8;
	request->width = request->height = honest->kind == HONEST_ENCODED ? 0 : FLAW_SIDE;
	memcpy(slot + n, honest->pixels[image], PIXEL_BYTES);
	request->n_bytes = PIXEL_BYTES + (unsigned)n;
}

static double difference(const float *a, const float *b, uint32_t n)
{
	double d = 0, norm = 0;

	for (uint32_t i = 0; i < n; i++) {
		d += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
		norm += (double)b[i] * b[i];
	}
	return sqrt(d / (norm > 0 ? norm : 1));
}

static void check_embedding(struct honest *honest, const struct shm_result *result, unsigned image)
{
	double d;

	if (honest->n_want[image] == 0) {
		honest->n_want[image] = result->n_embedding;
		memcpy(honest->want[image], result->values, sizeof(honest->want[image]));
		for (unsigned i = 0; i < image; i++)
			if (difference(honest->want[i], honest->want[image], result->n_embedding) <
				10 * MAX_DIFFERENCE)
				world_note(honest->world, VIOLATION_WRONG,
					"images %u and %u look the same", i, image);
		return;
	}
	d = result->n_embedding == honest->n_want[image]
		    ? difference(result->values, honest->want[image], result->n_embedding)
		    : INFINITY;
	if (!(d < MAX_DIFFERENCE))
		world_note(honest->world, VIOLATION_WRONG, "honest %u: image %u is %g away",
			honest->number, image, d);
}

static void check(struct honest *honest, const struct shm_request *request,
	const struct shm_result *result, unsigned image)
{
	struct world *world = honest->world;

	if (result->code < 0)
		world_note(world, VIOLATION_LOST, "honest %u: %s", honest->number, result->reason);
	else if (result->id != request->id || result->trigger_id != request->trigger_id ||
		 result->part_id != request->part_id || result->capture_us != request->capture_us ||
		 result->encoder != request->encoder)
		world_note(
			world, VIOLATION_WRONG, "honest %u: another one's answer", honest->number);
	else if (honest->kind != HONEST_ECHO)
		check_embedding(honest, result, image);
	else if (result->checksum != digest_checksum(peer_slot(&honest->peer, request->slot), 4096))
		world_note(world, VIOLATION_WRONG, "honest %u: checksum", honest->number);
}

static void keep_sample(struct honest *honest, int phase, uint64_t ns)
{
	struct samples *samples = &honest->world->samples[honest->kind][phase];
	uint32_t at = atomic_fetch_add(&samples->n, 1);

	if (at < WORLD_MAX_SAMPLES)
		samples->ns[at] = ns < UINT32_MAX ? (uint32_t)ns : UINT32_MAX;
}

/* False: the session is lost. */
static bool ask(struct honest *honest, int phase)
{
	struct world *world = honest->world;
	struct shm_request request = { .slot = honest->n_asked % honest->peer.n_slots,
		.trigger_id = honest->n_asked,
		.part_id = ~honest->n_asked,
		.capture_us = honest->number,
		.encoder = honest->n_asked * 7 };
	unsigned image = honest->n_asked % N_IMAGES;
	const struct shm_result *result;
	uint64_t begin;
	int r;

	if (honest->kind == HONEST_ECHO)
		fill_echo(honest, &request);
	else
		fill_image(honest, &request, image);
	begin = clock_now_ns();
	peer_submit(&honest->peer, &request);
	r = peer_wait(&honest->peer, (int)world->patience_ms, &result);
	if (r == 0)
		world_note(world, VIOLATION_HANG, "honest %u: no answer to request %llu",
			honest->number, (unsigned long long)honest->n_asked);
	else if (r < 0)
		world_note(world, VIOLATION_LOST, "honest %u: its session ended", honest->number);
	if (r <= 0)
		return false;
	/* What began in one phase and ended in another says nothing of either. */
	if (phase == atomic_load(&world->phase) && atomic_load(&world->is_measured))
		keep_sample(honest, phase, clock_now_ns() - begin);
	check(honest, &request, result, image);
	honest->n_asked++;
	(void)atomic_fetch_add(&world->n_answers, 1);
	return true;
}

void honest_main(struct world *world, enum honest_kind kind, unsigned number)
{
	struct honest *honest = calloc(1, sizeof(*honest));
	int phase;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)prctl(PR_SET_NAME, "honest");
	/* What kamend(8) advises. */
	(void)slice_shorten();
	if (!honest || wire_new(&honest->wire) < 0)
		_exit(1);
	honest->world = world;
	honest->kind = kind;
	honest->number = number;
	honest->peer.sock = honest->peer.results_fd = honest->peer.frames_fd = honest->peer.bell =
		-1;
	for (unsigned i = 0; i < N_IMAGES; i++)
		flaw_render(honest->pixels[i], i + 100 * number);
	while ((phase = atomic_load(&world->phase)) != PHASE_END) {
		bool is_lost = !peer_is_open(&honest->peer) ||
			       (honest->n_asked > 0 && honest->n_asked % RECONNECT_EVERY == 0);

		if (is_lost && !connect_again(honest))
			break;
		if (!ask(honest, phase))
			peer_close(&honest->peer);
		(void)nanosleep(&(const struct timespec){ 0, PAUSE_NS }, NULL);
	}
	peer_close(&honest->peer);
	wire_free(honest->wire);
	free(honest);
	_exit(0);
}
