/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/rng.h"
#include "learn/kmeans.h"
#include "learn/pca.h"
#include "learn/streams.h"
#include "learn/warm.h"

#define N_ITERATIONS 20
/* What varies less than this share of the largest deviation is rounding noise, or a direction that
 * these images happen not to span. Other views of them do, and the inverse root would let that one
 * direction drown the others: it gets no weight. */
#define MIN_DEVIATION 1e-2

static void set_projection(
	const struct head *head, const double *mean, const double *variances, const double *axes)
{
	double smallest = MIN_DEVIATION * sqrt(variances[0]);

	for (uint32_t e = 0; e < head->dim; e++) {
		double deviation = sqrt(variances[e]);
		double scale = deviation > smallest ? 1 / sqrt(deviation) : 0;
		double bias = 0;

		for (uint32_t j = 0; j < head->width; j++) {
			double weight = scale * axes[(size_t)e * head->width + j];

			head->weight[(size_t)e * head->width + j] = (float)weight;
			bias -= weight * mean[j];
		}
		head->bias[e] = (float)bias;
	}
}

int warm_projection(const struct head *head, const float *features, uint32_t n)
{
	size_t width = head->width;
	_cleanup_(freep) double *mean = malloc(width * sizeof(*mean));
	_cleanup_(freep) double *variances = malloc(width * sizeof(*variances));
	_cleanup_(freep) double *axes = malloc(width * width * sizeof(*axes));
	int r;

	if (!mean || !variances || !axes)
		return -ENOMEM;
	r = pca_fit(features, n, head->width, mean, variances, axes);
	if (r < 0)
		return r;
	set_projection(head, mean, variances, axes);
	return 0;
}

/* The first centres: distinct features, drawn by seed. */
static int draw_centres(const struct head *head, const float *z, uint32_t n, uint64_t seed)
{
	_cleanup_(freep) uint32_t *order = malloc(n * sizeof(*order));
	struct rng rng = rng_stream(seed, 0, 0, STREAM_CENTRES);

	if (!order)
		return -ENOMEM;
	rng_permutation(&rng, order, n);
	for (uint32_t k = 0; k < head->n_prototypes; k++)
		memcpy(head->prototypes + (size_t)k * head->dim, z + (size_t)order[k] * head->dim,
			head->dim * sizeof(*z));
	return 0;
}

int warm_start(const struct head *head, const float *features, uint32_t n, uint64_t seed)
{
	_cleanup_(freep) float *z = malloc((size_t)n * head->dim * sizeof(*z));
	_cleanup_(freep) float *lengths = malloc(n * sizeof(*lengths));
	int r;

	if (n < head->n_prototypes)
		return -EINVAL;
	if (!z || !lengths)
		return -ENOMEM;
	r = warm_projection(head, features, n);
	if (r < 0)
		return r;
	head_project(head, features, n, z, lengths);
	r = draw_centres(head, z, n, seed);
	if (r < 0)
		return r;
	return kmeans_run(
		head->prototypes, head->n_prototypes, z, n, head->dim, N_ITERATIONS, seed);
}
