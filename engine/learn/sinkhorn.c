/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdbool.h>
#include <stddef.h>

#include "learn/sinkhorn.h"

/* Of scores / eps: what floats bear with room for the sums, and what is nothing beside 1. */
#define MAX_RANGE 60.f
#define ROW_LEAST (-30.f)

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

/* Whether e^score of all rows and columns are floats, also by the largest of their column. */
static bool are_near(const float *scores, size_t n, float eps)
{
	float least = 0, most = 0;

	for (size_t i = 0; i < n; i++) {
		least = fminf(least, scores[i]);
		most = fmaxf(most, scores[i]);
	}
	return most - least <= MAX_RANGE * eps;
}

/* Moves whole columns and rows, which scaling undoes: every column's largest is e^0, and no row is
 * less than e^ROW_LEAST, which adds nothing to a sum of columns and leaves no row of zeros. From
 * there a scaled row has at least 1 / (n k), and so has a column. */
static void bring_near(float *scores, uint32_t n, uint32_t k, float eps)
{
	for (uint32_t j = 0; j < k; j++) {
		float most = -INFINITY;

		for (uint32_t i = 0; i < n; i++)
			most = fmaxf(most, scores[(size_t)i * k + j]);
		for (uint32_t i = 0; i < n; i++)
			scores[(size_t)i * k + j] -= most;
	}
	for (uint32_t i = 0; i < n; i++) {
		float *row = scores + (size_t)i * k, most = -INFINITY;

		for (uint32_t j = 0; j < k; j++)
			most = fmaxf(most, row[j]);
		for (uint32_t j = 0; j < k && most < ROW_LEAST * eps; j++)
			row[j] += ROW_LEAST * eps - most;
	}
}

void sinkhorn(float *scores, uint32_t n, uint32_t k, float eps, uint32_t iterations)
{
	if (!are_near(scores, (size_t)n * k, eps))
		bring_near(scores, n, k, eps);
	/* The first division by the whole sum changes nothing that the column scaling does not undo. */
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
