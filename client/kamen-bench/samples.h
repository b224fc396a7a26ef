/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_BENCH_SAMPLES_H
#define KAMEN_BENCH_SAMPLES_H

#include <stddef.h>

/** Measured values; grows as needed. */
struct samples {
	double *values;
	size_t n, room;
};

/** @return 0 or -ENOMEM */
int samples_add(struct samples *samples, double value);
/** Adds all of from. @return 0 or -ENOMEM */
int samples_merge(struct samples *into, const struct samples *from);
/** Nearest rank, p in [0, 1]; sorts. NaN: empty. */
double samples_percentile(struct samples *samples, double p);
void samples_done(struct samples *samples);

#endif
