/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_BENCH_SCHEDULE_H
#define KAMEN_BENCH_SCHEDULE_H

#include <stdint.h>

/** When one of several clients is due, at a rate that all of them make up together. */
struct schedule {
	uint64_t begin_ns;
	double rate; /* requests a second of all */
	uint32_t index, n_clients;
};

/** Of the request number i; answers do not matter to it, so that a slow one delays no other. */
static inline uint64_t schedule_due(const struct schedule *schedule, uint64_t i)
{
	double turn = (double)i * schedule->n_clients + schedule->index;

	return schedule->begin_ns + (uint64_t)(turn * 1e9 / schedule->rate);
}

#endif
