/* SPDX-License-Identifier: Apache-2.0 */
#include "base/spread.h"

#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>

struct spread *spread_new(unsigned n)
{
	struct spread *spread = malloc(sizeof(*spread) + n * sizeof(spread->cpus[0]));

	if (!spread)
		return NULL;
	spread->n = n;
	spread_begin(spread);
	return spread;
}

void spread_begin(struct spread *spread)
{
	for (unsigned i = 0; i < spread->n; i++)
		atomic_store_explicit(&spread->cpus[i], -1, memory_order_relaxed);
}

/* Whether another than `thread` was seen there. */
static bool is_taken(struct spread *spread, unsigned thread, int cpu)
{
	for (unsigned i = 0; i < spread->n; i++)
		if (i != thread &&
			atomic_load_explicit(&spread->cpus[i], memory_order_relaxed) == cpu)
			return true;
	return false;
}

/* The next that is free, from the present one on: neighbours are more likely of one cache. -1: none. */
static int free_cpu(struct spread *spread, unsigned thread, int cpu, const cpu_set_t *allowed)
{
	for (int i = 1; i < CPU_SETSIZE; i++) {
		const int next = (cpu + i) % CPU_SETSIZE;

		if (CPU_ISSET(next, allowed) && !is_taken(spread, thread, next))
			return next;
	}
	return -1;
}

/* It is there when the first call returns; the second lets it go anywhere again. */
static int move_from(struct spread *spread, unsigned thread, int cpu)
{
	cpu_set_t allowed, one;
	int to;

	if (sched_getaffinity(0, sizeof(allowed), &allowed) < 0)
		return cpu;
	to = free_cpu(spread, thread, cpu, &allowed);
	if (to < 0)
		return cpu;
	CPU_ZERO(&one);
	CPU_SET(to, &one);
	if (sched_setaffinity(0, sizeof(one), &one) < 0)
		return cpu;
	(void)sched_setaffinity(0, sizeof(allowed), &allowed);
	return to;
}

void spread_pass(struct spread *spread, unsigned thread)
{
	const int last = atomic_load_explicit(&spread->cpus[thread], memory_order_relaxed);
	int cpu = sched_getcpu();

	if (cpu >= 0 && is_taken(spread, thread, cpu))
		cpu = move_from(spread, thread, cpu);
	/* Others read the line behind each barrier. */
	if (cpu != last)
		atomic_store_explicit(&spread->cpus[thread], cpu, memory_order_relaxed);
}
