/* SPDX-License-Identifier: Apache-2.0 */
#include "load.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "load_client.h"

#define PATIENCE_NS UINT64_C(30000000000)

/* All clients count from one time: those whose requests were due together would queue in one run, and not
 * in another. */
struct start {
	pthread_barrier_t barrier;
	uint64_t begin_ns;
};

struct worker {
	struct load_client c;
	pthread_t thread;
	struct start *start;
	int r;
};

static uint64_t start_wait(struct start *start)
{
	if (pthread_barrier_wait(&start->barrier) == PTHREAD_BARRIER_SERIAL_THREAD)
		start->begin_ns = bench_now_ns();
	(void)pthread_barrier_wait(&start->barrier);
	return start->begin_ns;
}

static void cdf_fill(double *cdf, uint32_t n, double exponent)
{
	double sum = 0;

	for (uint32_t i = 0; i < n; i++)
		cdf[i] = sum += pow(i + 1, -exponent);
	for (uint32_t i = 0; i < n; i++)
		cdf[i] /= sum;
}

int load_result_new(struct load_result *ret_result, uint32_t n_sites)
{
	*ret_result = (struct load_result){ .of_site = calloc(n_sites, sizeof(struct samples)) };
	if (!ret_result->of_site)
		return -ENOMEM;
	ret_result->n_sites = n_sites;
	return 0;
}

int load_result_take(struct load_result *result, struct load_result *from)
{
	int r = 0;

	result->completed += from->completed;
	result->refused += from->refused;
	result->lost += from->lost;
	result->doubled += from->doubled;
	result->wrong += from->wrong;
	if (*from->why && !*result->why)
		memcpy(result->why, from->why, sizeof(result->why));
	for (uint32_t i = 0; i < from->n_sites && r == 0; i++)
		r = samples_merge(&result->of_site[i], &from->of_site[i]);
	if (r == 0)
		r = samples_merge(&result->ms, &from->ms);
	if (r == 0)
		r = samples_merge(&result->overhead, &from->overhead);
	if (r == 0)
		r = samples_merge(&result->compute, &from->compute);
	if (r == 0)
		r = samples_merge(&result->late_ms, &from->late_ms);
	load_result_done(from);
	return r;
}

void load_result_done(struct load_result *result)
{
	for (uint32_t i = 0; i < result->n_sites; i++)
		samples_done(&result->of_site[i]);
	samples_done(&result->ms);
	samples_done(&result->overhead);
	samples_done(&result->compute);
	samples_done(&result->late_ms);
	free(result->of_site);
	result->of_site = NULL;
	result->n_sites = 0;
}

/* ---- images to learn from */

static int push_one(
	struct kamen_client *client, const struct load *load, uint32_t site, struct rng *rng)
{
	struct kamen_request request = { .size = sizeof(request),
		.verb = KAMEN_PUSH,
		.format = KAMEN_RGB8,
		.site = load->sites[site],
		.n_bytes = 3 * (size_t)load->px * load->px,
		.width = load->px,
		.height = load->px };
	struct kamen_result answer;
	struct kamen_frame frame;
	int r = kamen_frame_acquire(client, request.n_bytes, &frame);

	if (r < 0)
		return r;
	for (size_t i = 0; i < request.n_bytes; i++)
		((uint8_t *)frame.data)[i] = (uint8_t)rng_u32(rng);
	r = kamen_submit(client, &frame, &request, NULL);
	if (r == 0)
		r = kamen_wait(client, PATIENCE_NS, &answer);
	if (r < 0)
		return r;
	r = answer.code;
	kamen_release(client, &answer);
	return r;
}

int load_feed(const struct load *load, uint32_t site, unsigned n)
{
	struct kamen_options options = { .size = sizeof(options),
		.n_slots = 1,
		.slot_bytes = 3 * (uint64_t)load->px * load->px };
	struct rng rng = rng_stream(load->seed, UINT32_MAX, site, 0);
	struct kamen_client *client = NULL;
	int r = kamen_client_connect(&client, load->data_socket, &options);

	for (unsigned i = 0; i < n && r == 0; i++)
		r = push_one(client, load, site, &rng);
	(void)kamen_client_free(client);
	return r;
}

/* ---- the clients */

static void *worker_thread(void *data)
{
	struct worker *w = data;
	uint64_t begin_ns;

	/* A client that has deadlines wants to wake when it is time, not within 50 us of it. */
	(void)prctl(PR_SET_TIMERSLACK, 1UL);
	if (w->r == 0)
		w->r = load_client_warm_up(&w->c);
	begin_ns = start_wait(w->start);
	if (w->r == 0)
		w->r = load_client_work(&w->c, begin_ns);
	return NULL;
}

static void worker_start(
	struct worker *w, const struct load *load, uint32_t index, struct start *start)
{
	w->c.load = load;
	w->c.index = index;
	w->c.rng = rng_stream(load->seed, index, 0, 0);
	w->start = start;
	cdf_fill(w->c.cdf, load->n_sites, load->zipf);
	w->r = load_result_new(&w->c.result, load->n_sites);
	if (w->r == 0)
		w->r = load->transport->open(&w->c.connection, load);
	/* All of them come to the barrier, also those that have nothing to do. */
	if (pthread_create(&w->thread, NULL, worker_thread, w) != 0)
		abort();
}

static int worker_collect(struct worker *w, struct load_result *result)
{
	struct load_result *own = &w->c.result;
	int r = w->r;

	for (uint32_t i = 0; i < own->n_sites; i++)
		if (samples_merge(&own->ms, &own->of_site[i]) < 0 && r == 0)
			r = -ENOMEM;
	w->c.load->transport->close(w->c.connection);
	/* What it counted holds whatever became of it. */
	return load_result_take(result, own) < 0 && r == 0 ? -ENOMEM : r;
}

int load_run(const struct load *load, struct load_result *result)
{
	struct worker *workers = calloc(load->n_clients, sizeof(*workers));
	struct start start = { 0 };
	double longest = 0;
	int r = workers ? 0 : -ENOMEM;

	if (r == 0 && !result->of_site)
		r = load_result_new(result, load->n_sites);
	if (r < 0) {
		free(workers);
		return r;
	}
	(void)pthread_barrier_init(&start.barrier, NULL, load->n_clients);
	for (uint32_t i = 0; i < load->n_clients; i++)
		worker_start(&workers[i], load, i, &start);
	for (uint32_t i = 0; i < load->n_clients; i++) {
		int one;

		(void)pthread_join(workers[i].thread, NULL);
		longest = fmax(longest, workers[i].c.result.seconds);
		one = worker_collect(&workers[i], result);
		r = r < 0 ? r : one;
	}
	result->seconds += longest;
	(void)pthread_barrier_destroy(&start.barrier);
	free(workers);
	return r;
}
