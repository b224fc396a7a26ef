/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_PACE_H
#define KAMEN_SERVE_PACE_H

#include <stdint.h>

#include "serve/serving.h"

#define PACE_MAX_SIZES 16u
#define PACE_N_BATCHES 7u /* 1, 2, 4 to SERVE_MAX_BATCH */

/** Of one batch size: a mean of the latest forwards and how far they stray from it (Jacobson). */
struct pace_mean {
	uint64_t mean_ns, stray_ns; /* mean 0: none was seen */
};

/** How long forwards of an input size take. Of a cascade a batch takes several: they count each. */
struct pace_size {
	uint32_t px;         /* 0: free */
	uint64_t fastest_ns; /* the shortest ever, whatever the batch: what needs less cannot be */
	uint64_t doubt_ns;   /* by which that is believed to be too long, at most all of it */
	struct pace_mean of_batch[PACE_N_BATCHES];
};

/** Zeroed to begin with; under the scheduler's lock. */
struct pace {
	struct pace_size sizes[PACE_MAX_SIZES];
};

/** A batch of n, a power of two, took that long. */
void pace_learn(struct pace *pace, const struct serving *serving, uint32_t n, uint64_t compute_ns);
/** What a batch of n is likely to take at most; 0: nothing is known. */
uint64_t pace_expect(const struct pace *pace, const struct serving *serving, uint32_t n);
/** What it cannot be faster than; 0: nothing is known. */
uint64_t pace_least(const struct pace *pace, const struct serving *serving);
/*
 * Whoever was not computed was not measured either: what was learnt on a bad day must not hold for
 * ever. After a refusal by the least, and after a batch that was not made as large as n.
 */
void pace_doubt_least(struct pace *pace, const struct serving *serving);
void pace_doubt(struct pace *pace, const struct serving *serving, uint32_t n);

#endif
