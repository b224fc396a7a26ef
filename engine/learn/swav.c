/* SPDX-License-Identifier: Apache-2.0 */
#include <stddef.h>

#include "learn/softmax.h"
#include "learn/swav.h"

/* Cross-entropy of one row against one target. */
static double row_loss(
	const float *o, const float *q, double log_sum, uint32_t k, float temperature)
{
	double loss = 0;

	for (uint32_t j = 0; j < k; j++)
		loss -= q[j] * ((double)o[j] / temperature - log_sum);
	return loss;
}

static float sum_of(const float *q, uint32_t k)
{
	double sum = 0;

	for (uint32_t j = 0; j < k; j++)
		sum += q[j];
	return (float)sum;
}

/* d_o holds the softmax p and becomes scale * (p * sum(q) - q), summed over the view's targets. */
static double view_row(const struct swav_shape *shape, uint32_t view, uint32_t b, const float *o,
	const float *q, float *d_o, float weight)
{
	uint32_t k = shape->n_prototypes;
	double log_sum = softmax_row(d_o, o, k, shape->temperature);
	float scale = weight / shape->temperature;
	double loss = 0;
	float share = 0;

	for (uint32_t target = 0; target < SWAV_TARGETS; target++)
		if (target != view)
			share += sum_of(q + ((size_t)target * shape->batch + b) * k, k);
	for (uint32_t j = 0; j < k; j++)
		d_o[j] *= scale * share;
	for (uint32_t target = 0; target < SWAV_TARGETS; target++) {
		const float *q_row = q + ((size_t)target * shape->batch + b) * k;

		if (target == view)
			continue;
		loss += row_loss(o, q_row, log_sum, k, shape->temperature);
		for (uint32_t j = 0; j < k; j++)
			d_o[j] -= scale * q_row[j];
	}
	return weight * loss;
}

double swav_loss(const struct swav_shape *shape, const float *o, const float *q, float *d_o)
{
	float weight = 1.f / (float)(SWAV_TARGETS * (shape->n_views - 1) * shape->batch);
	double loss = 0;

	for (uint32_t row = 0; row < shape->n_views * shape->batch; row++) {
		size_t at = (size_t)row * shape->n_prototypes;

		loss += view_row(
			shape, row / shape->batch, row % shape->batch, o + at, q, d_o + at, weight);
	}
	return loss;
}
