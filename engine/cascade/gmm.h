/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_CASCADE_GMM_H
#define KAMEN_CASCADE_GMM_H

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

/** Bias, means and factors not yet written. -ENOMEM */
int gmm_new(struct gmm **ret_gmm, uint32_t n_components, uint32_t dim);
void gmm_free(struct gmm *gmm);

#include "base/cleanup.h"
DEFINE_CLEANUP(struct gmm *, gmm_free)

/** The component of the highest posterior. */
uint32_t gmm_assign(const struct gmm *gmm, const float *row);

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
