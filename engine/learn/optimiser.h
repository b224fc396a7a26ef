/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_OPTIMISER_H
#define KAMEN_LEARN_OPTIMISER_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Half a cosine: `from` at step 0, `to` at step `steps`. */
static inline float schedule_between(float from, float to, uint32_t step, uint32_t steps)
{
	return to + (from - to) * .5f * (float)(1 + cos(3.14159265358979323846 * step / steps));
}

/** Half a cosine from base to 0: the rate of step 0..steps-1. */
static inline float schedule_cosine(float base, uint32_t step, uint32_t steps)
{
	return schedule_between(base, 0, step, steps);
}

/** Rises linearly over the first n_warm steps, never from 0, then falls to `floor` over the rest. */
static inline float schedule_warm_to(
	float base, float floor, uint32_t step, uint32_t steps, uint32_t n_warm)
{
	if (step < n_warm)
		return base * (float)(step + 1) / (float)(n_warm + 1);
	return schedule_between(base, floor, step - n_warm, steps - n_warm);
}

/** schedule_warm_to() that ends at 0. */
static inline float schedule_warm(float base, uint32_t step, uint32_t steps, uint32_t n_warm)
{
	return schedule_warm_to(base, 0, step, steps, n_warm);
}

/** Adam with betas (.9, .99), eps 1e-8, no decay. Steps are counted from 1.
 * first, second (n): the moments, zero before step 1. */
void optimiser_adam(float *params, float *first, float *second, const float *grad, size_t n,
	float lr, uint32_t step);
/** SGD with momentum .9, no dampening, no decay. velocity (n), zero before the first step. */
void optimiser_sgd(float *params, float *velocity, const float *grad, size_t n, float lr);

/** What an Adam step needs beside the arrays. */
struct kern_adam_step {
	float beta1, beta2, eps;
	float rate;      /* lr / (1 - beta1^step) */
	float root_bias; /* sqrt(1 - beta2^step) */
	float keep;      /* what decay leaves of a value: 1 - lr decay, 1 without */
};
typedef void kern_adam_row_fn(float *params, float *first, float *second, const float *grad,
	size_t n, const struct kern_adam_step *step);
typedef void kern_sgd_row_fn(
	float *params, float *velocity, const float *grad, size_t n, float lr, float momentum);
struct kern_optimiser_impl {
	const char *name;
	const char *cpu; /* of cpu_has(); NULL: the reference */
	kern_adam_row_fn *adam;
	kern_sgd_row_fn *sgd;
};
extern const struct kern_optimiser_impl
	kern_optimiser_impls[]; /* fastest first, reference last, NULL rows end */
/** The fastest that this CPU has. */
const struct kern_optimiser_impl *kern_optimiser(void);
/** Of step `step`, counted from 1; no decay. */
struct kern_adam_step kern_adam_step(
	double beta1, double beta2, double eps, float lr, uint32_t step);
/** What scores and swav's head learn by. */
struct kern_adam_step optimiser_adam_step(float lr, uint32_t step);
#define OPTIMISER_MOMENTUM .9f

kern_adam_row_fn kern_adam_row_c, kern_adam_row_avx2, kern_adam_row_avx512;
kern_sgd_row_fn kern_sgd_row_c, kern_sgd_row_avx2, kern_sgd_row_avx512;

#endif
