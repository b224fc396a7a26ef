/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_GMM_H
#define KAMEN_LEARN_GMM_H

#include <stddef.h>
#include <stdint.h>

/**
 * A Gaussian mixture with full covariances (algorithms.md 1.10): what sends an image to its expert.
 * log(weight N(x)) of component c = bias_c - |factor_c (x - mean_c)|^2 / 2, but for a constant.
 */
struct gmm {
	uint32_t n_components, dim;
	float *bias;       /* (n_components) */
	float *means;      /* (n_components, dim) */
	float *factors;    /* (n_components, dim (dim + 1) / 2): lower triangles, row by row */
	double likelihood; /* mean log likelihood of the rows it was fitted to, at the last look */
	uint32_t n_iterations;
};

struct gmm_options {
	double tolerance; /* of the mean log likelihood */
	double ridge;     /* added to every variance */
	uint32_t max_iterations;
};
/** 1e-3, 1e-6, 100 */
struct gmm_options gmm_options_default(void);

/**
 * Expectation and maximisation from a given assignment until the likelihood rests.
 *
 * @param rows    (n, dim), finite
 * @param owners  (n) component of each row: the start
 * @return 0, -EINVAL: no rows or an owner beyond the components, -EDOM: a covariance is not
 *         positive, which a ridge prevents, -ENOMEM
 */
int gmm_refine(struct gmm **ret_gmm, const float *rows, uint32_t n, uint32_t dim,
	uint32_t n_components, const uint32_t *owners, const struct gmm_options *options);
/** The same from k-means, drawn by seed. n at least n_components. */
int gmm_fit(struct gmm **ret_gmm, const float *rows, uint32_t n, uint32_t dim,
	uint32_t n_components, uint64_t seed, const struct gmm_options *options);
void gmm_free(struct gmm *gmm);

#include "base/cleanup.h"
DEFINE_CLEANUP(struct gmm *, gmm_free)

/** The component of the highest posterior. */
uint32_t gmm_assign(const struct gmm *gmm, const float *row);

/** Euclidean k-means from seeds far from each other (k-means++): owners (n). -EINVAL: n < k. */
int gmm_kmeans(
	uint32_t *owners, const float *rows, uint32_t n, uint32_t dim, uint32_t k, uint64_t seed);

static inline size_t gmm_factor_size(uint32_t dim)
{
	return (size_t)dim * (dim + 1) / 2;
}

/** What it takes to store one, in f32. */
static inline size_t gmm_bytes(const struct gmm *gmm)
{
	return gmm->n_components * (1 + gmm->dim + gmm_factor_size(gmm->dim)) * sizeof(float);
}

#endif
