/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_CLASSIFY_UNKNOWN_H
#define KAMEN_CLASSIFY_UNKNOWN_H

#include <stdbool.h>

#include "classify/prototype.h"

/**
 * From where on an image is of none of the classes: a distance to the nearest prototype, 1 - cosine
 * over the class's spread, that is unusual: a class whose images are unlike each other takes in what is
 * further from it. What is usual is said by recent traffic, of which up to half may itself be unknown,
 * between limits by the supports, each left out of its own class.
 */
struct unknown {
	float threshold;                /* NAN: nothing to go by, nothing is unknown */
	uint32_t n_supports, n_traffic; /* that it was found by */
};

/** Fewer say nothing of what is usual. */
#define UNKNOWN_MIN_SUPPORTS 4u
#define UNKNOWN_MIN_TRAFFIC 32u

/**
 * @param supports  (n, dim), labels (n): as given to prototypes_new()
 * @param traffic   (n_traffic, dim) features of recent images, of whatever class; most of them are of
 *                  a known one
 * @return 0, -ENOMEM
 */
int unknown_calibrate(struct unknown *ret_unknown, const struct prototypes *prototypes,
	const float *supports, const uint32_t *labels, uint32_t n, const float *traffic,
	uint32_t n_traffic);

/** In [0, 1], 0.5 at the threshold, growing with the distance as prototypes_classify() gives it. NAN
 * without a threshold. */
float unknown_score(const struct unknown *unknown, float distance);
static inline bool unknown_is(const struct unknown *unknown, float distance)
{
	return distance > unknown->threshold;
}

#endif
