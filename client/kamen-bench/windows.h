/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_BENCH_WINDOWS_H
#define KAMEN_BENCH_WINDOWS_H

#include <stdbool.h>
#include <stdint.h>

#include "samples.h"

#define WINDOWS_N 3u

/**
 * One window of measurements after another, until the medians of the last three are within
 * tolerance of each other. Only these three are kept, so what came before was warm-up.
 */
struct windows {
	double tolerance; /* of the largest median over the smallest, less one */
	uint32_t n;       /* ended so far */
	struct samples kept[WINDOWS_N];
};

/** An empty window, to be filled until windows_end(). */
struct samples *windows_begin(struct windows *windows);
void windows_end(struct windows *windows);
/** Whether there are three and they agree. */
bool windows_agree(struct windows *windows);
/** All that the kept windows have. @return 0 or -ENOMEM */
int windows_merge(const struct windows *windows, struct samples *into);
void windows_done(struct windows *windows);

#endif
