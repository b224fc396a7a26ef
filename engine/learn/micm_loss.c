/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "classify/cosine.h"
#include "learn/micm_loss.h"
#include "learn/softmax.h"
#include "model/row.h"

#define CENTRE_DECAY .9f
#define PIXEL_SHARE .75

void micm_sharpen(float *t, const float *o, const float *centre, uint32_t n, uint32_t n_outputs,
	float temperature)
{
#pragma omp parallel for schedule(static)
	for (uint32_t i = 0; i < n; i++) {
		float *row = t + (size_t)i * n_outputs;

		for (uint32_t k = 0; k < n_outputs; k++)
			row[k] = o[(size_t)i * n_outputs + k] - centre[k];
		(void)softmax_row(row, row, n_outputs, temperature);
	}
}

void micm_add_rows(float *sum, const float *o, uint32_t n, uint32_t n_outputs)
{
	for (uint32_t i = 0; i < n; i++)
		row_add(sum, o + (size_t)i * n_outputs, n_outputs);
}

void micm_move_centre(float *centre, const float *sum, uint32_t n, uint32_t n_outputs)
{
	for (uint32_t k = 0; k < n_outputs; k++)
		centre[k] = CENTRE_DECAY * centre[k] + (1 - CENTRE_DECAY) * sum[k] / (float)n;
}

static double sum_of(const float *t, uint32_t n)
{
	double sum = 0;

	for (uint32_t k = 0; k < n; k++)
		sum += t[k];
	return sum;
}

/* Cross-entropy of one row against some targets, times weight; d_o is its gradient. */
static double cross_entropy(const struct micm_shape *shape, const float *o,
	const float *const *targets, uint32_t n_targets, float weight, float *d_o)
{
	double log_sum = softmax_row(d_o, o, shape->n_outputs, shape->temperature);
	float scale = weight / shape->temperature;
	double loss = 0, mass = 0;

	for (uint32_t i = 0; i < n_targets; i++)
		mass += sum_of(targets[i], shape->n_outputs);
	for (uint32_t k = 0; k < shape->n_outputs; k++)
		d_o[k] *= scale * (float)mass;
	for (uint32_t i = 0; i < n_targets; i++)
		for (uint32_t k = 0; k < shape->n_outputs; k++) {
			loss -= targets[i][k] * ((double)o[k] / shape->temperature - log_sum);
			d_o[k] -= scale * targets[i][k];
		}
	return weight * loss;
}

double micm_class_loss(const struct micm_shape *shape, const float *o, const float *t, float *d_o)
{
	const uint32_t n_terms = MICM_TARGETS * (shape->n_views - 1);
	const float weight = 1 / (float)((1 + n_terms) * shape->batch);
	double loss = 0;

	for (uint32_t row = 0; row < shape->n_views * shape->batch; row++) {
		const float *targets[MICM_TARGETS];
		uint32_t n_targets = 0;

		for (uint32_t q = 0; q < MICM_TARGETS; q++)
			if (q != row / shape->batch)
				targets[n_targets++] =
					t + ((size_t)q * shape->batch + row % shape->batch) *
						    shape->n_outputs;
		loss += cross_entropy(shape, o + (size_t)row * shape->n_outputs, targets, n_targets,
			weight, d_o + (size_t)row * shape->n_outputs);
	}
	return loss;
}

double micm_patch_loss(const struct micm_shape *shape, const uint32_t *rows, const float *o,
	const float *t, uint32_t n, float *d_o)
{
	const float weight = 1 / (float)((1 + MICM_TARGETS) * shape->batch);
	double loss = 0;

	for (uint32_t first = 0, end; first < n; first = end) {
		for (end = first + 1; end < n && rows[end] == rows[first];)
			end++;
		for (uint32_t i = first; i < end; i++) {
			const float *target = t + (size_t)i * shape->n_outputs;

			loss += cross_entropy(shape, o + (size_t)i * shape->n_outputs, &target, 1,
				weight / (float)(end - first), d_o + (size_t)i * shape->n_outputs);
		}
	}
	return loss;
}

double micm_pixel_loss(
	const float *predicted, const float *wanted, size_t n, size_t n_all, float *d_predicted)
{
	const double scale = 1 / (PIXEL_SHARE * (double)n_all);
	double loss = 0;

	for (size_t i = 0; i < n; i++) {
		float difference = predicted[i] - wanted[i];

		loss += (double)difference * difference;
		d_predicted[i] = (float)(2 * scale) * difference;
	}
	return scale * loss;
}

double micm_pixel_guess(const float *wanted, size_t n, size_t n_all)
{
	double sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += (double)wanted[i] * wanted[i];
	return sum / (PIXEL_SHARE * (double)n_all);
}

static float cosine(const float *a, const float *b, uint32_t n)
{
	return cosine_dot(a, b, n) / (cosine_length(a, n) * cosine_length(b, n));
}

/* Of row i among the others of its view; the first one of equals. */
static uint32_t nearest_of(const float *rows, uint32_t i, uint32_t n, uint32_t n_outputs)
{
	const float *own = rows + (size_t)i * n_outputs;
	float top = -INFINITY;
	uint32_t found = i;

	for (uint32_t j = 0; j < n; j++) {
		float near = cosine(own, rows + (size_t)j * n_outputs, n_outputs);

		if (j != i && near > top) {
			top = near;
			found = j;
		}
	}
	return found;
}

/* softplus(-cosine(t, o)), times weight; its gradient is added to d_o. */
static double pull(const float *t, const float *o, uint32_t n, float weight, float *d_o)
{
	float length = cosine_length(o, n), target = cosine_length(t, n);
	float near = cosine_dot(t, o, n) / (length * target);
	float scale = -weight / (1 + expf(near)) / length;

	for (uint32_t k = 0; k < n; k++)
		d_o[k] += scale * (t[k] / target - near * o[k] / length);
	return weight * log1p(exp(-(double)near));
}

double micm_pseudo_loss(const struct micm_shape *shape, const float *o, const float *raw,
	const float *t, uint32_t *nearest, float *d_o)
{
	const uint32_t n = shape->batch, k = shape->n_outputs;
	const float weight = 1 / (float)((1 + MICM_TARGETS * MICM_TARGETS) * n);
	double loss = 0;

	memset(d_o, 0, (size_t)MICM_TARGETS * n * k * sizeof(*d_o));
#pragma omp parallel for schedule(static)
	for (uint32_t i = 0; i < MICM_TARGETS * n; i++)
		nearest[i] = nearest_of(raw + (size_t)(i / n) * n * k, i % n, n, k);
	for (uint32_t i = 0; i < MICM_TARGETS * n; i++)
		for (uint32_t view = 0; view < MICM_TARGETS && nearest[i] != i % n; view++) {
			size_t at = ((size_t)view * n + nearest[i]) * k;

			loss += pull(t + (size_t)i * k, o + at, k, weight, d_o + at);
		}
	return loss;
}
