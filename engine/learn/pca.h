/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_PCA_H
#define KAMEN_LEARN_PCA_H

#include <stdint.h>

/**
 * Principal directions of n rows.
 *
 * @param x          (n, dim)
 * @param mean       (dim)
 * @param variances  (dim), descending, of the centred rows, divided by n
 * @param axes       (dim, dim): row i is the direction of variances[i], of length 1, its entry of
 *                   largest size positive
 * @return 0, -ENOMEM, or -EDOM: LAPACK found no solution (a value is not finite)
 */
int pca_fit(
	const float *x, uint32_t n, uint32_t dim, double *mean, double *variances, double *axes);

#endif
