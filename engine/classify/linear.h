/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_CLASSIFY_LINEAR_H
#define KAMEN_CLASSIFY_LINEAR_H

#include <stdint.h>

/**
 * The linear probe of algorithms.md 1.8: multinomial logistic regression on embeddings as they are
 * (not normalised) with a 1 appended, mean cross-entropy plus lambda / 2 times the squared weights,
 * lambda = .01 / n. For figures only: nothing that is served looks at labels.
 */
struct linear {
	uint32_t dim, n_classes;
	double *weights; /* (n_classes, dim + 1); the last of a row goes with the 1 */
	double loss;     /* where the descent ended */
	double slope;    /* largest entry of the gradient there */
	uint32_t n_iterations;
};

/**
 * L-BFGS in double from 0, at most 500 iterations: the same bits for the same input.
 *
 * @param rows    (n, dim), finite
 * @param labels  (n), 0..n_classes-1
 * @return 0, -EINVAL: no rows, fewer than 2 classes or a label beyond them, -EDOM: a value is not
 *         finite, -ENOMEM
 */
int linear_fit(struct linear **ret_linear, const float *rows, const uint32_t *labels, uint32_t n,
	uint32_t dim, uint32_t n_classes);
void linear_free(struct linear *linear);

#include "base/cleanup.h"
DEFINE_CLEANUP(struct linear *, linear_free)

/** The class of one row (dim). */
uint32_t linear_classify(const struct linear *linear, const float *row);

#endif
