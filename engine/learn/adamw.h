/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_ADAMW_H
#define KAMEN_LEARN_ADAMW_H

#include "model/params.h"

/** A step of AdamW as PyTorch's: decay apart from the moments, p -= lr decay p, on what decays. */
struct adamw {
	double beta1, beta2, eps;
	float lr, decay;
	uint32_t step; /* from 1 */
};

/** first, second: the moments, zero before step 1. What is fixed stays. All arrays (n_values). */
void adamw_step(const struct adamw *adamw, const struct params *params, float *values, float *first,
	float *second, const float *grad);

/**
 * Shortens the gradient to `most` where it is longer, as PyTorch's clip_grad_norm_() does; what is
 * fixed has no say.
 * @return its length before
 */
double adamw_clip(const struct params *params, float *grad, double most);

/** teacher = decay teacher + (1 - decay) student, n of them. */
void ema_move(float *teacher, const float *student, size_t n, float decay);

#endif
