/* SPDX-License-Identifier: Apache-2.0 */
#include "learn/adamw.h"

#include "learn/optimiser.h"

enum { LANES = 16 };

static struct kern_adam_step step_of(const struct adamw *adamw, bool decays)
{
	struct kern_adam_step step =
		kern_adam_step(adamw->beta1, adamw->beta2, adamw->eps, adamw->lr, adamw->step);

	if (decays)
		step.keep = (float)(1 - (double)adamw->lr * adamw->decay);
	return step;
}

void adamw_step(const struct adamw *adamw, const struct params *params, float *values, float *first,
	float *second, const float *grad)
{
	const struct kern_adam_step steps[] = { step_of(adamw, false), step_of(adamw, true) };
	kern_adam_row_fn *row = kern_optimiser()->adam;

	/* Nothing is shared between tensors: who takes which does not show. */
#pragma omp parallel for schedule(dynamic)
	for (unsigned t = 0; t < params->n_tensors; t++) {
		const struct param *param = &params->tensors[t];
		const size_t at = param->offset;

		if (!param->is_fixed)
			row(values + at, first + at, second + at, grad + at, param->n,
				&steps[param->decays]);
	}
}

static double squares(const float *x, size_t n)
{
	double lane[LANES] = { 0 }, sum = 0;
	size_t i = 0;

	for (; i + LANES <= n; i += LANES)
		for (unsigned j = 0; j < LANES; j++)
			lane[j] += (double)x[i + j] * x[i + j];
	for (; i < n; i++)
		sum += (double)x[i] * x[i];
	for (unsigned j = 0; j < LANES; j++)
		sum += lane[j];
	return sum;
}

/* Of all gradients of what is not fixed; the same sum on any team. */
static double length_of(const struct params *params, const float *grad)
{
	double sum = 0;

	for (unsigned t = 0; t < params->n_tensors; t++)
		if (!params->tensors[t].is_fixed)
			sum += squares(grad + params->tensors[t].offset, params->tensors[t].n);
	return sqrt(sum);
}

double adamw_clip(const struct params *params, float *grad, double most)
{
	const double length = length_of(params, grad);
	const float factor = (float)(most / (length + 1e-6));

	if (factor < 1)
		for (size_t i = 0; i < params->n_values; i++)
			grad[i] *= factor;
	return length;
}

void ema_move(float *teacher, const float *student, size_t n, float decay)
{
#pragma omp parallel for simd schedule(static)
	for (size_t i = 0; i < n; i++)
		teacher[i] = decay * teacher[i] + (1 - decay) * student[i];
}
