/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_INFERENCE_H
#define KAMEN_SERVE_INFERENCE_H

#include "ops/metrics.h"
#include "serve/scheduler.h"

/**
 * The threads that own oneDNN, one as a rule; on machines with many cores several (worker.h) that
 * take batches of one scheduler, each on its share of the CPUs.
 */
struct inference;
struct hold;

struct inference_options {
	const struct base *base;                /* outlives the thread */
	const char *family;                     /* "": recognise */
	const char *precision;                  /* auto: bf16 where the CPU has it */
	uint32_t n_workers, n_slots, max_batch; /* slots of all together, one each at least */
	uint64_t slot_memory; /* of the slots together, of which there is one at least; 0: any */
	uint32_t n_threads;   /* of all; 0: one a CPU */
	const char *cpus;     /* that they may use, "0-3,8"; "": all */
	struct hold *hold;    /* of whom a batch is to have peace; NULL: nobody */
};

/** What the loop reads while the thread runs. */
struct inference_stats {
	_Atomic uint64_t n_batches, n_images, n_switches, n_late, n_failed, n_plans;
	_Atomic uint64_t slot_bytes; /* held */
	struct histogram queue, compute;
};

enum inference_state { INFERENCE_STARTING, INFERENCE_READY, INFERENCE_FAILED };

/** Builds and checks the model on the new threads; the descriptor tells when all are done.
 * @return 0, -ENODEV: none of the CPUs may be used (diag), ... */
int inference_start(struct inference **ret_inference, const struct inference_options *options,
	struct diag *diag);
/** From now on batches are taken from here. Call once READY. */
void inference_serve(struct inference *inference, struct scheduler *scheduler);
/** After scheduler_stop(), of one that serves: waits until the last batch was handed back. */
void inference_finish(struct inference *inference);
/** Ends and joins the threads; nothing that borrows from the model may be left. NULL is fine. */
void inference_free(struct inference *inference);

/** Readable once the state is no longer STARTING. */
int inference_fd(const struct inference *inference);
enum inference_state inference_state(const struct inference *inference);
/** Why it FAILED. */
const char *inference_error(const struct inference *inference);
/** Shape, layout and names may be read from any thread once READY; nothing else. */
struct vit *inference_vit(const struct inference *inference);
/** Of what is new (struct serving has its own). Once READY. */
enum precision inference_precision(const struct inference *inference);
/** Whether what was judged in a precision can be served in it. Once READY. */
bool inference_has(const struct inference *inference, enum precision precision);
const struct inference_stats *inference_stats(const struct inference *inference);
/** False when a batch has been running since the last call without an end. */
bool inference_moves(struct inference *inference);

#endif
