/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_BENCH_NEIGHBOURS_H
#define KAMEN_BENCH_NEIGHBOURS_H

#include <sys/types.h>

/** Who computes beside what is measured. */
enum neighbour {
	NEIGHBOUR_NOBODY,
	NEIGHBOUR_LEARNER,
	NEIGHBOUR_SPINNERS, /* what any neighbour of SCHED_IDLE costs on this machine and kernel */
	N_NEIGHBOURS,
};

/**
 * The learner of a daemon of our own, which stands still in others' turns, and threads at SCHED_IDLE, one
 * a processor, that only spin. Not thread-safe.
 */
struct neighbours;

/** The learner goes on as it was until the first turn. @return 0, -ESRCH: there is none, -ENOMEM */
int neighbours_new(struct neighbours **ret_neighbours, pid_t learner);
/** From now on this one alone. @return 0, -EBUSY: the learner does not stop, or a negative errno of the
 * spinners until now */
int neighbours_let(struct neighbours *neighbours, enum neighbour neighbour);
/** Seconds of processor time that the learner has taken in all its life; NaN: not told. */
double neighbours_learner_cpu_s(const struct neighbours *neighbours);
/** Lets the learner go on. NULL is fine. */
void neighbours_free(struct neighbours *neighbours);
static inline void neighbours_freep(struct neighbours **neighbours)
{
	neighbours_free(*neighbours);
}

#endif
