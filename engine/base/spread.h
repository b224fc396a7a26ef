/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_BASE_SPREAD_H
#define KAMEN_BASE_SPREAD_H

#include <stdatomic.h>

/**
 * Threads that compute one thing together, each on a CPU of its own. Where every CPU is busy, be it with
 * what gives way (SCHED_IDLE), the kernel may wake a thread on the CPU of the one that woke it, and leave
 * both there: they take turns, and what they compute takes twice the time. Nobody is bound: who shares a
 * CPU with another moves, and may be moved on; its mask, the same as before, is its own from then on: CPUs
 * that come later are not in it.
 */
struct spread {
	unsigned n;
	_Atomic int cpus[]; /* (n) where each was seen last; -1: not yet */
};

/** Of n threads; NULL: no memory. To be freed with free(). */
struct spread *spread_new(unsigned n);

/** Forgets where they were: before they begin. */
void spread_begin(struct spread *spread);

/**
 * Says that the calling thread, number `thread` of them, is here, and moves it where another was seen on
 * the same CPU and one that it may use is left. Some nanoseconds unless another was seen here.
 */
void spread_pass(struct spread *spread, unsigned thread);

#endif
