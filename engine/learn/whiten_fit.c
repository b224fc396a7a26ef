/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <stdbool.h>

#include "learn/pca.h"
#include "learn/whiten_fit.h"

/* Of the largest singular value: what floats of the rows cannot tell from 0. */
#define MIN_SINGULAR 1e-5

int whiten_fit(
	struct whiten **ret_whiten, const float *rows, uint32_t n, uint32_t n_in, uint32_t n_out)
{
	_cleanup_(whiten_freep) struct whiten *whiten = NULL;
	_cleanup_(freep) double *mean = malloc(n_in * sizeof(*mean));
	_cleanup_(freep) double *variances = malloc(n_in * sizeof(*variances));
	_cleanup_(freep) double *axes = malloc((size_t)n_in * n_in * sizeof(*axes));
	int r;

	if (n == 0 || n_out == 0 || n_out > n_in)
		return -EINVAL;
	if (!mean || !variances || !axes)
		return -ENOMEM;
	r = pca_fit(rows, n, n_in, mean, variances, axes);
	if (r == 0)
		r = whiten_new(&whiten, n_in, n_out);
	if (r < 0)
		return r;
	for (uint32_t j = 0; j < n_in; j++)
		whiten->mean[j] = (float)mean[j];
	for (uint32_t i = 0; i < n_out; i++) {
		/* A variance is the square of a singular value, divided by n. */
		double singular = sqrt(variances[i] * n);
		bool varies = singular > MIN_SINGULAR * sqrt(variances[0] * n);

		for (uint32_t j = 0; j < n_in; j++)
			whiten->axes[(size_t)i * n_in + j] =
				varies ? (float)(axes[(size_t)i * n_in + j] / singular) : 0;
	}
	*ret_whiten = TAKE_PTR(whiten);
	return 0;
}
