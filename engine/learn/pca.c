/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include <lapacke.h>

#include "base/cleanup.h"
#include "learn/pca.h"

static void mean_of(double *mean, const float *x, uint32_t n, uint32_t dim)
{
	memset(mean, 0, dim * sizeof(*mean));
	for (uint32_t i = 0; i < n; i++)
		for (uint32_t j = 0; j < dim; j++)
			mean[j] += x[(size_t)i * dim + j];
	for (uint32_t j = 0; j < dim; j++)
		mean[j] /= n;
}

/* Upper triangle of the covariance. */
static void covariance(
	double *c, double *row, const float *x, const double *mean, uint32_t n, uint32_t dim)
{
	memset(c, 0, (size_t)dim * dim * sizeof(*c));
	for (uint32_t i = 0; i < n; i++) {
		for (uint32_t j = 0; j < dim; j++)
			row[j] = x[(size_t)i * dim + j] - mean[j];
		for (uint32_t j = 0; j < dim; j++)
			for (uint32_t k = j; k < dim; k++)
				c[(size_t)j * dim + k] += row[j] * row[k];
	}
	for (size_t j = 0; j < (size_t)dim * dim; j++)
		c[j] /= n;
}

static bool is_finite(const double *values, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!isfinite(values[i]))
			return false;
	return true;
}

static void fix_sign(double *axis, uint32_t dim)
{
	uint32_t largest = 0;

	for (uint32_t j = 1; j < dim; j++)
		if (fabs(axis[j]) > fabs(axis[largest]))
			largest = j;
	if (axis[largest] < 0)
		for (uint32_t j = 0; j < dim; j++)
			axis[j] = -axis[j];
}

int pca_fit(const float *x, uint32_t n, uint32_t dim, double *mean, double *variances, double *axes)
{
	_cleanup_(freep) double *c = malloc((size_t)dim * dim * sizeof(*c));
	_cleanup_(freep) double *ascending = malloc(dim * sizeof(*ascending));

	if (!c || !ascending)
		return -ENOMEM;
	mean_of(mean, x, n, dim);
	covariance(c, ascending, x, mean, n, dim);
	if (!is_finite(c, (size_t)dim * dim))
		return -EDOM;
	if (LAPACKE_dsyevd(LAPACK_ROW_MAJOR, 'V', 'U', (lapack_int)dim, c, (lapack_int)dim,
		    ascending) != 0)
		return -EDOM;

	/* Column j of c belongs to ascending[j]. */
	for (uint32_t i = 0; i < dim; i++) {
		uint32_t column = dim - 1 - i;

		variances[i] = ascending[column] > 0 ? ascending[column] : 0;
		for (uint32_t j = 0; j < dim; j++)
			axes[(size_t)i * dim + j] = c[(size_t)j * dim + column];
		fix_sign(axes + (size_t)i * dim, dim);
	}
	return 0;
}
