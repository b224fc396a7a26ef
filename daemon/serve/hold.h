/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_HOLD_H
#define KAMEN_SERVE_HOLD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "ops/config.h"

/**
 * The learner, stopped (SIGSTOP) while a batch computes. SCHED_IDLE alone does not keep it away: the
 * scheduler gives it a tick (4 ms at 250 Hz) in every few forward passes, in which a thread of inference
 * waits, and the others for that one. Samples of a shadow and stored images are no batch here.
 *
 * hold_watch() and hold_let_go() are the loop's, hold_begin() and hold_end() of the one thread that
 * computes.
 */
struct hold {
	pthread_mutex_t lock; /* of what follows: nobody else's process is sent a signal */
	pid_t pid;            /* 0: nobody to hold */
	bool is_held;
	uint64_t changed_ns;       /* when it was stopped, or went on */
	uint64_t starved_ns;       /* since when it has had no pause of batches worth the name */
	_Atomic uint64_t total_ns; /* that it was held, without the present time */
};

/**
 * Whether batches and the learner are after the same CPUs: one worker whose threads take every CPU that
 * the learner may use, and a learner with cpu=idle. Otherwise it may have CPUs to itself, or is to go on
 * however busy serving is.
 */
bool hold_is_due(const struct config *config);

void hold_init(struct hold *hold);
void hold_done(struct hold *hold);
/** This child has begun to learn. */
void hold_watch(struct hold *hold, pid_t pid);
/** It goes on and is not held any more: it has nothing to learn, is to end, or has ended and nobody has
 * waited for it yet. */
void hold_let_go(struct hold *hold);

/** A batch begins, and has ended. NULL: nothing to do. Now and then one that never rests is let be; who was
 * stopped before by somebody else stays so. */
void hold_begin(struct hold *hold);
void hold_end(struct hold *hold);

#endif
