/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_GMM_FIT_H
#define KAMEN_LEARN_GMM_FIT_H

#include "cascade/gmm.h"

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

/** Euclidean k-means from seeds far from each other (k-means++): owners (n). -EINVAL: n < k. */
int gmm_kmeans(
	uint32_t *owners, const float *rows, uint32_t n, uint32_t dim, uint32_t k, uint64_t seed);

#endif
