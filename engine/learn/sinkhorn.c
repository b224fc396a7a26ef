/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stddef.h>

#include "learn/sinkhorn.h"

static void scale_column(float *q, uint32_t n, uint32_t k, uint32_t column)
{
	double sum = 0;
	float scale;

	for (uint32_t i = 0; i < n; i++)
		sum += q[(size_t)i * k + column];
	scale = (float)(1 / (sum * k));
	for (uint32_t i = 0; i < n; i++)
		q[(size_t)i * k + column] *= scale;
}

static void scale_row(float *row, uint32_t k, double share)
{
	double sum = 0;
	float scale;

	for (uint32_t j = 0; j < k; j++)
		sum += row[j];
	scale = (float)(share / sum);
	for (uint32_t j = 0; j < k; j++)
		row[j] *= scale;
}

void sinkhorn(float *scores, uint32_t n, uint32_t k, float eps, uint32_t iterations)
{
	/* Cosines: exp(1 / .05) is safe in f32. The first division by the whole sum changes nothing
	 * that the column scaling does not undo. */
	for (size_t i = 0; i < (size_t)n * k; i++)
		scores[i] = expf(scores[i] / eps);
	for (uint32_t t = 0; t < iterations; t++) {
		for (uint32_t j = 0; j < k; j++)
			scale_column(scores, n, k, j);
		for (uint32_t i = 0; i < n; i++)
			scale_row(scores + (size_t)i * k, k, 1. / n);
	}
	for (uint32_t i = 0; i < n; i++)
		scale_row(scores + (size_t)i * k, k, 1);
}
