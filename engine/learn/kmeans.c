/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/rng.h"
#include "classify/cosine.h"
#include "learn/kmeans.h"
#include "learn/streams.h"

#define MIN_LENGTH2 1e-12f

static uint32_t nearest(const float *centres, uint32_t k, const float *point, uint32_t dim)
{
	float best_cosine = -2;
	uint32_t best = 0;

	for (uint32_t j = 0; j < k; j++) {
		float cosine = cosine_dot(centres + (size_t)j * dim, point, dim);

		if (cosine > best_cosine) {
			best_cosine = cosine;
			best = j;
		}
	}
	return best;
}

static void sum_members(
	float *sums, const uint32_t *owner, const float *points, uint32_t n, uint32_t dim)
{
	for (uint32_t i = 0; i < n; i++) {
		float *sum = sums + (size_t)owner[i] * dim;

		for (uint32_t j = 0; j < dim; j++)
			sum[j] += points[(size_t)i * dim + j];
	}
}

int kmeans_run(float *centres, uint32_t k, const float *points, uint32_t n, uint32_t dim,
	uint32_t n_iterations, uint64_t seed)
{
	_cleanup_(freep) uint32_t *owner = malloc(n * sizeof(*owner));

	if (!owner)
		return -ENOMEM;
	for (uint32_t t = 0; t < n_iterations; t++) {
#pragma omp parallel for schedule(static)
		for (uint32_t i = 0; i < n; i++)
			owner[i] = nearest(centres, k, points + (size_t)i * dim, dim);
		memset(centres, 0, (size_t)k * dim * sizeof(*centres));
		sum_members(centres, owner, points, n, dim);
		for (uint32_t j = 0; j < k; j++) {
			float *centre = centres + (size_t)j * dim;
			struct rng rng = rng_stream(seed, t, j, STREAM_EMPTY);

			if (cosine_dot(centre, centre, dim) < MIN_LENGTH2)
				memcpy(centre, points + (size_t)rng_below(&rng, n) * dim,
					dim * sizeof(*centre));
		}
		cosine_normalise(centres, centres, k, dim);
	}
	return 0;
}
