/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/rng.h"
#include "learn/gmm_fit.h"
#include "learn/streams.h"

#define MAX_ITERATIONS 300u

static double distance2(const float *a, const double *b, uint32_t dim)
{
	double sum = 0;

	for (uint32_t j = 0; j < dim; j++)
		sum += ((double)a[j] - b[j]) * ((double)a[j] - b[j]);
	return sum;
}

static void put_centre(double *centre, const float *row, uint32_t dim)
{
	for (uint32_t j = 0; j < dim; j++)
		centre[j] = (double)row[j];
}

/* A row with a chance that grows with the square of its distance; where all are 0, any. */
static uint32_t draw(const double *distances, uint32_t n, struct rng *rng)
{
	double sum = 0, at;

	for (uint32_t i = 0; i < n; i++)
		sum += distances[i];
	if (!(sum > 0))
		return rng_below(rng, n);
	at = (double)rng_uniform(rng) * sum;
	for (uint32_t i = 0; i + 1 < n; i++) {
		at -= distances[i];
		if (at < 0)
			return i;
	}
	return n - 1;
}

static void scatter(double *centres, double *distances, const float *rows, uint32_t n, uint32_t dim,
	uint32_t k, uint64_t seed)
{
	struct rng rng = rng_stream(seed, 0, 0, STREAM_MIXTURE);

	put_centre(centres, rows + (size_t)rng_below(&rng, n) * dim, dim);
	for (uint32_t i = 0; i < n; i++)
		distances[i] = INFINITY;
	for (uint32_t c = 1; c < k; c++) {
		const double *last = centres + (size_t)(c - 1) * dim;

		for (uint32_t i = 0; i < n; i++)
			distances[i] =
				fmin(distances[i], distance2(rows + (size_t)i * dim, last, dim));
		put_centre(centres + (size_t)c * dim, rows + (size_t)draw(distances, n, &rng) * dim,
			dim);
	}
}

/* @return whether any row has a new owner */
static bool choose(uint32_t *owners, const double *centres, const float *rows, uint32_t n,
	uint32_t dim, uint32_t k)
{
	bool changed = false;

	for (uint32_t i = 0; i < n; i++) {
		double least = INFINITY;
		uint32_t best = 0;

		for (uint32_t c = 0; c < k; c++) {
			double distance =
				distance2(rows + (size_t)i * dim, centres + (size_t)c * dim, dim);

			if (distance < least) {
				least = distance;
				best = c;
			}
		}
		changed = changed || owners[i] != best;
		owners[i] = best;
	}
	return changed;
}

/* A centre without rows stays where it is. */
static void move_centres(double *centres, double *sums, uint32_t *counts, const uint32_t *owners,
	const float *rows, uint32_t n, uint32_t dim, uint32_t k)
{
	memset(sums, 0, (size_t)k * dim * sizeof(*sums));
	memset(counts, 0, k * sizeof(*counts));
	for (uint32_t i = 0; i < n; i++) {
		counts[owners[i]]++;
		for (uint32_t j = 0; j < dim; j++)
			sums[(size_t)owners[i] * dim + j] += (double)rows[(size_t)i * dim + j];
	}
	for (uint32_t c = 0; c < k; c++)
		for (uint32_t j = 0; j < dim && counts[c] > 0; j++)
			centres[(size_t)c * dim + j] = sums[(size_t)c * dim + j] / counts[c];
}

int gmm_kmeans(
	uint32_t *owners, const float *rows, uint32_t n, uint32_t dim, uint32_t k, uint64_t seed)
{
	_cleanup_(freep) double *centres = malloc((size_t)k * dim * sizeof(*centres));
	_cleanup_(freep) double *sums = malloc((size_t)k * dim * sizeof(*sums));
	_cleanup_(freep) double *distances = malloc(n * sizeof(*distances));
	_cleanup_(freep) uint32_t *counts = malloc(k * sizeof(*counts));

	if (n < k || k == 0 || dim == 0)
		return -EINVAL;
	if (!centres || !sums || !distances || !counts)
		return -ENOMEM;
	scatter(centres, distances, rows, n, dim, k, seed);
	memset(owners, 0xff, n * sizeof(*owners));
	for (uint32_t t = 0; t < MAX_ITERATIONS; t++) {
		if (!choose(owners, centres, rows, n, dim, k))
			break;
		move_centres(centres, sums, counts, owners, rows, n, dim, k);
	}
	return 0;
}
