/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_WORKER_H
#define KAMEN_SERVE_WORKER_H

#include <pthread.h>
#include <sched.h>

#include "serve/inference.h"

/**
 * One thread that computes, with a packed model, weight slots, plans and OpenMP threads of its own.
 * It starts with a self-test and then takes batches until the scheduler stops.
 */
struct worker;

struct worker_options {
	const struct inference_options *inference;
	uint32_t n_slots, n_threads; /* n_threads 0: what OpenMP was told */
	uint64_t slot_memory;
	const cpu_set_t *cpus; /* to keep to; NULL: any. Copied */
	struct inference_stats *stats;
	/* Workers pack one after another: so they need the room for it once, and oneDNN's caches are
	 * there before two threads look into them. */
	pthread_mutex_t *packing;
	void (*on_ready)(void *owner); /* on the worker's thread: READY or FAILED now */
	void *owner;
};

int worker_start(struct worker **ret_worker, const struct worker_options *options);
/** From now on batches are taken from here. Call once READY. */
void worker_serve(struct worker *worker, struct scheduler *scheduler);
/** After scheduler_stop(), of one that serves: waits until its last batch was handed back. */
void worker_finish(struct worker *worker);
/** Ends and joins the thread; nothing that borrows from its model may be left. NULL is fine. */
void worker_free(struct worker *worker);

enum inference_state worker_state(const struct worker *worker);
/** Why it FAILED. */
const char *worker_error(const struct worker *worker);
struct vit *worker_vit(const struct worker *worker);
/** Whether it passed its self-test in a precision. */
bool worker_has(const struct worker *worker, enum precision precision);
enum precision worker_precision(const struct worker *worker);
/** False when a batch has been running since the last call without an end. */
bool worker_moves(struct worker *worker);

#endif
