/* SPDX-License-Identifier: Apache-2.0 */
#include "load.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/rng.h"
#include "kamen/kamen.h"

#define PATIENCE_NS UINT64_C(30000000000)

struct worker {
	const struct load *load;
	uint32_t index;
	pthread_t thread;
	pthread_barrier_t *start;
	struct kamen_client *client;
	struct rng rng;
	double cdf[LOAD_MAX_SITES];
	struct load_result result;
	int r;
};

static void cdf_fill(double *cdf, uint32_t n, double exponent)
{
	double sum = 0;

	for (uint32_t i = 0; i < n; i++)
		cdf[i] = sum += pow(i + 1, -exponent);
	for (uint32_t i = 0; i < n; i++)
		cdf[i] /= sum;
}

static uint32_t site_draw(struct worker *w)
{
	double u = rng_u32(&w->rng) / 4294967296.0;
	uint32_t i = 0;

	while (i + 1 < w->load->n_sites && w->cdf[i] < u)
		i++;
	return i;
}

static void complain(struct load_result *result, const char *why)
{
	if (!*result->why)
		(void)snprintf(result->why, sizeof(result->why), "%s", why);
}

static int request_submit(struct worker *w, uint32_t site)
{
	const uint32_t px = w->load->px;
	struct kamen_request request = { .size = sizeof(request),
		.verb = KAMEN_INFER,
		.format = KAMEN_RGB8,
		.site = w->load->sites[site],
		.n_bytes = 3 * (size_t)px * px,
		.width = px,
		.height = px };
	struct kamen_frame frame;
	int r = kamen_frame_acquire(w->client, request.n_bytes, &frame);

	if (r < 0)
		return r;
	if (w->load->versions) {
		request.mask = KAMEN_MASK_VERSION;
		request.version = w->load->versions[site];
	}
	/* A camera would have written it; the content does not matter to the time. */
	memset(frame.data, (int)(rng_u32(&w->rng) & 255), request.n_bytes);
	return kamen_submit(w->client, &frame, &request, NULL);
}

/* 0: answered, or refused for this request alone. */
static int request_run(struct worker *w, uint32_t site, uint64_t due_ns)
{
	struct load_result *result = &w->result;
	struct kamen_result answer;
	uint64_t sent = bench_now_ns(), now;
	int r = request_submit(w, site);

	if (r == 0)
		r = kamen_wait(w->client, PATIENCE_NS, &answer);
	if (r < 0) {
		result->lost++;
		complain(result, strerror(-r));
		return r;
	}
	now = bench_now_ns();
	if (answer.code < 0) {
		result->refused++;
		complain(result, *answer.reason ? answer.reason : strerror(-answer.code));
	} else {
		result->completed++;
		r = samples_add(&result->of_site[site], (double)(now - due_ns) * 1e-6);
		if (r == 0)
			r = samples_add(&result->overhead,
				((double)(now - sent) - (double)answer.compute_ns) * 1e-6);
	}
	kamen_release(w->client, &answer);
	return r;
}

static void sleep_until(uint64_t ns)
{
	struct timespec ts = { (time_t)(ns / 1000000000u), (long)(ns % 1000000000u) };

	(void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL);
}

static void work(struct worker *w)
{
	const struct load *load = w->load;
	const uint64_t begin = bench_now_ns(), end = begin + (uint64_t)(load->seconds * 1e9);
	const double step_ns = load->rate > 0 ? load->n_clients * 1e9 / load->rate : 0;
	double offset_ns = step_ns * w->index / load->n_clients;
	uint64_t due = begin;

	while (w->r == 0) {
		if (step_ns > 0) {
			due = begin + (uint64_t)offset_ns;
			offset_ns += step_ns;
		} else {
			due = bench_now_ns();
		}
		if (due >= end)
			break;
		if (due > bench_now_ns())
			sleep_until(due);
		w->r = request_run(w, site_draw(w), due);
	}
	w->result.seconds = (double)(bench_now_ns() - begin) * 1e-9;
}

static int result_new(struct load_result *ret_result, uint32_t n_sites)
{
	*ret_result = (struct load_result){ .of_site = calloc(n_sites, sizeof(struct samples)) };
	if (!ret_result->of_site)
		return -ENOMEM;
	ret_result->n_sites = n_sites;
	return 0;
}

static void samples_forget(struct load_result *result)
{
	for (uint32_t i = 0; i < result->n_sites; i++)
		samples_done(&result->of_site[i]);
	samples_done(&result->ms);
	samples_done(&result->overhead);
}

/* Every site once, unmeasured: plans and slots are made at the first request. */
static void warm_up(struct worker *w)
{
	for (uint32_t i = 0; i < w->load->n_sites && w->r == 0; i++)
		w->r = request_run(w, i, bench_now_ns());
	if (w->r == 0 && w->result.refused)
		w->r = -EPROTO;
	samples_forget(&w->result);
	w->result.completed = 0;
}

static void *worker_thread(void *data)
{
	struct worker *w = data;

	if (w->r == 0)
		warm_up(w);
	(void)pthread_barrier_wait(w->start);
	if (w->r == 0)
		work(w);
	return NULL;
}

static int merge(struct samples *into, const struct samples *from)
{
	int r = 0;

	for (size_t i = 0; i < from->n && r == 0; i++)
		r = samples_add(into, from->values[i]);
	return r;
}

static int worker_collect(struct worker *w, struct load_result *result)
{
	int r = 0;

	result->completed += w->result.completed;
	result->refused += w->result.refused;
	result->lost += w->result.lost;
	if (*w->result.why)
		complain(result, w->result.why);
	for (uint32_t i = 0; i < w->result.n_sites && r == 0; i++) {
		r = merge(&result->of_site[i], &w->result.of_site[i]);
		if (r == 0)
			r = merge(&result->ms, &w->result.of_site[i]);
	}
	if (r == 0)
		r = merge(&result->overhead, &w->result.overhead);
	load_result_done(&w->result);
	return r;
}

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
	int r = kamen_client_connect(&client, load->endpoint, &options);

	for (unsigned i = 0; i < n && r == 0; i++)
		r = push_one(client, load, site, &rng);
	(void)kamen_client_free(client);
	return r;
}

int load_run(const struct load *load, struct load_result *result)
{
	struct kamen_options options = { .size = sizeof(options),
		.n_slots = 2,
		.slot_bytes = 3 * (uint64_t)load->px * load->px };
	struct worker *workers = calloc(load->n_clients, sizeof(*workers));
	pthread_barrier_t start;
	double longest = 0;
	int r = workers ? 0 : -ENOMEM;

	if (r == 0 && !result->of_site)
		r = result_new(result, load->n_sites);
	if (r < 0) {
		free(workers);
		return r;
	}
	(void)pthread_barrier_init(&start, NULL, load->n_clients);
	for (uint32_t i = 0; i < load->n_clients; i++) {
		struct worker *w = &workers[i];

		w->load = load;
		w->index = i;
		w->start = &start;
		w->rng = rng_stream(load->seed, i, 0, 0);
		cdf_fill(w->cdf, load->n_sites, load->zipf);
		w->r = result_new(&w->result, load->n_sites);
		if (w->r == 0)
			w->r = kamen_client_connect(&w->client, load->endpoint, &options);
		/* All of them come to the barrier, also those that have nothing to do. */
		if (pthread_create(&w->thread, NULL, worker_thread, w) != 0)
			abort();
	}
	for (uint32_t i = 0; i < load->n_clients; i++) {
		(void)pthread_join(workers[i].thread, NULL);
		r = r < 0 ? r : workers[i].r;
		longest = fmax(longest, workers[i].result.seconds);
		if (worker_collect(&workers[i], result) < 0 && r == 0)
			r = -ENOMEM;
		workers[i].client = kamen_client_free(workers[i].client);
	}
	result->seconds += longest;
	(void)pthread_barrier_destroy(&start);
	free(workers);
	return r;
}

void load_result_done(struct load_result *result)
{
	samples_forget(result);
	free(result->of_site);
	result->of_site = NULL;
	result->n_sites = 0;
}
