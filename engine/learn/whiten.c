/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <stdbool.h>

#include "learn/pca.h"
#include "learn/whiten.h"

/* Of the largest singular value: what floats of the rows cannot tell from 0. */
#define MIN_SINGULAR 1e-5

static int whiten_new(struct whiten **ret_whiten, uint32_t n_in, uint32_t n_out)
{
	_cleanup_(whiten_freep) struct whiten *whiten = calloc(1, sizeof(*whiten));

	if (!whiten)
		return -ENOMEM;
	whiten->n_in = n_in;
	whiten->n_out = n_out;
	whiten->mean = malloc(n_in * sizeof(*whiten->mean));
	whiten->axes = malloc((size_t)n_out * n_in * sizeof(*whiten->axes));
	if (!whiten->mean || !whiten->axes)
		return -ENOMEM;
	*ret_whiten = TAKE_PTR(whiten);
	return 0;
}

void whiten_free(struct whiten *whiten)
{
	if (!whiten)
		return;
	free(whiten->mean);
	free(whiten->axes);
	free(whiten);
}

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

void whiten_apply(const struct whiten *whiten, const float *rows, uint32_t n, float *out)
{
	uint32_t n_in = whiten->n_in;

#pragma omp parallel for schedule(static)
	for (uint32_t i = 0; i < n; i++)
		for (uint32_t k = 0; k < whiten->n_out; k++) {
			const float *row = rows + (size_t)i * n_in;
			const float *axis = whiten->axes + (size_t)k * n_in;
			double sum = 0;

			for (uint32_t j = 0; j < n_in; j++)
				sum += (double)(row[j] - whiten->mean[j]) * (double)axis[j];
			out[(size_t)i * whiten->n_out + k] = (float)sum;
		}
}
