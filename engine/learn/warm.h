/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_WARM_H
#define KAMEN_LEARN_WARM_H

#include "learn/head.h"

/** A round starts its head from no more images than these. */
#define WARM_MAX_IMAGES 4096u

/**
 * Starts the head at the frozen features (design.md section 5): the projection is the first
 * principal directions, each scaled by (standard deviation along it)^-1/2, centred, and 0 where the
 * features hardly vary; the prototypes are centres of spherical k-means of what it makes of the features.
 *
 * @param features  (n, head->width), n at least head->n_prototypes
 * @return 0, -EINVAL: fewer features than prototypes, -ENOMEM or -EDOM: a feature is not finite
 */
int warm_start(const struct head *head, const float *features, uint32_t n, uint64_t seed);

/** The first half: the projection alone. */
int warm_projection(const struct head *head, const float *features, uint32_t n);

#endif
