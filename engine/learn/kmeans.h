/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_KMEANS_H
#define KAMEN_LEARN_KMEANS_H

#include <stdint.h>

/**
 * Spherical k-means: assign to the largest cosine, centre = normalised sum.
 *
 * @param centres     (k, dim), start in, result out; normalised
 * @param points      (n, dim), normalised
 * @param seed        draws a point for a centre that lost all of its own
 * @return 0 or -ENOMEM
 */
int kmeans_run(float *centres, uint32_t k, const float *points, uint32_t n, uint32_t dim,
	uint32_t n_iterations, uint64_t seed);

#endif
