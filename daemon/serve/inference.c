/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/inference.h"

#include <errno.h>
#include <sys/eventfd.h>

#include "ops/cpus.h"
#include "serve/limits.h"
#include "serve/worker.h"

struct inference {
	struct inference_options options;
	struct inference_stats stats;
	struct worker **workers; /* (options.n_workers), of which n were started */
	uint32_t n;
	_Atomic uint32_t n_starting;
	pthread_mutex_t packing;
	int ready_fd;
	struct diag diag; /* why none was started */
};

/* The last one tells the loop. */
static void on_ready(void *owner)
{
	struct inference *inference = owner;
	uint64_t one = 1;

	if (atomic_fetch_sub(&inference->n_starting, 1) > 1)
		return;
	/* Cannot fail: nobody else has written. */
	if (write(inference->ready_fd, &one, sizeof(one)) < 0)
		return;
}

static uint32_t at_least_1(uint64_t n)
{
	return n > 0 ? (uint32_t)n : 1;
}

/* Never more than it has CPUs. */
static uint32_t threads_of(const struct inference_options *o, const cpu_set_t *share)
{
	uint32_t n_cpus = (uint32_t)CPU_COUNT(share);
	uint32_t n = o->n_threads > 0 ? at_least_1(o->n_threads / o->n_workers) : n_cpus;

	return n < n_cpus ? n : n_cpus;
}

/* Slots, memory and CPUs are shared out. One worker that may run anywhere is left as OpenMP has it. */
static int start_workers(struct inference *inference)
{
	const struct inference_options *o = &inference->options;
	const bool is_bound = o->n_workers > 1 || o->cpus[0];
	struct worker_options one = {
		.inference = o,
		.n_slots = at_least_1(o->n_slots / o->n_workers),
		.slot_memory = o->slot_memory / o->n_workers,
		.stats = &inference->stats,
		.packing = &inference->packing,
		.on_ready = on_ready,
		.owner = inference,
	};
	cpu_set_t all, share;
	int r = is_bound ? cpus_allowed(o->cpus, &all, &inference->diag) : 0;

	for (uint32_t i = 0; i < o->n_workers && r == 0; i++) {
		if (is_bound) {
			share = cpus_share(&all, i, o->n_workers);
			one.cpus = &share;
			one.n_threads = threads_of(o, &share);
		}
		r = worker_start(&inference->workers[i], &one);
		if (r == 0)
			inference->n++;
	}
	return r;
}

int inference_start(struct inference **ret_inference, const struct inference_options *options,
	struct diag *diag)
{
	struct inference *inference = calloc(1, sizeof(*inference));
	int r;

	if (!inference)
		return -ENOMEM;
	(void)pthread_mutex_init(&inference->packing, NULL);
	inference->options = *options;
	inference->options.n_workers = at_least_1(options->n_workers);
	if (inference->options.max_batch > SERVE_MAX_BATCH)
		inference->options.max_batch = SERVE_MAX_BATCH;
	atomic_store(&inference->n_starting, inference->options.n_workers);
	inference->ready_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	inference->workers = calloc(inference->options.n_workers, sizeof(*inference->workers));
	r = inference->ready_fd < 0 ? -errno : inference->workers ? 0 : -ENOMEM;
	if (r == 0)
		r = start_workers(inference);
	if (r < 0) {
		if (inference->diag.text[0])
			(void)diag_set(diag, -r, "%s", inference->diag.text);
		inference_free(inference);
		return r;
	}
	*ret_inference = inference;
	return 0;
}

void inference_serve(struct inference *inference, struct scheduler *scheduler)
{
	for (uint32_t i = 0; i < inference->n; i++)
		worker_serve(inference->workers[i], scheduler);
}

void inference_finish(struct inference *inference)
{
	for (uint32_t i = 0; i < inference->n; i++)
		worker_finish(inference->workers[i]);
}

void inference_free(struct inference *inference)
{
	if (!inference)
		return;
	for (uint32_t i = 0; i < inference->n; i++)
		worker_free(inference->workers[i]);
	free(inference->workers);
	(void)pthread_mutex_destroy(&inference->packing);
	if (inference->ready_fd >= 0)
		(void)close(inference->ready_fd);
	free(inference);
}

int inference_fd(const struct inference *inference)
{
	return inference->ready_fd;
}

enum inference_state inference_state(const struct inference *inference)
{
	enum inference_state state = INFERENCE_READY;

	if (atomic_load(&inference->n_starting) > 0)
		return INFERENCE_STARTING;
	for (uint32_t i = 0; i < inference->n; i++)
		if (worker_state(inference->workers[i]) == INFERENCE_FAILED)
			state = INFERENCE_FAILED;
	return state;
}

const char *inference_error(const struct inference *inference)
{
	for (uint32_t i = 0; i < inference->n; i++)
		if (worker_state(inference->workers[i]) == INFERENCE_FAILED)
			return worker_error(inference->workers[i]);
	return "";
}

/* One model is as good as another: they are of the same file. */
struct vit *inference_vit(const struct inference *inference)
{
	return worker_vit(inference->workers[0]);
}

enum precision inference_precision(const struct inference *inference)
{
	return worker_precision(inference->workers[0]);
}

bool inference_has(const struct inference *inference, enum precision precision)
{
	bool all_have = true;

	for (uint32_t i = 0; i < inference->n; i++)
		all_have = all_have && worker_has(inference->workers[i], precision);
	return all_have;
}

const struct inference_stats *inference_stats(const struct inference *inference)
{
	return &inference->stats;
}

bool inference_moves(struct inference *inference)
{
	bool all_move = true;

	/* Each is looked at, or the next look would compare with an older one. */
	for (uint32_t i = 0; i < inference->n; i++)
		all_move = worker_moves(inference->workers[i]) && all_move;
	return all_move;
}
