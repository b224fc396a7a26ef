/* SPDX-License-Identifier: Apache-2.0 */

/* Compiled once per instruction set (KERN_ISA); the compiler does the vectorising. */
#include "learn/optimiser.h"

#define PASTE(a, b) a##b
#define NAME(stem, isa) PASTE(stem, isa)

void NAME(kern_adam_row_, KERN_ISA)(float *restrict params, float *restrict first,
	float *restrict second, const float *restrict grad, size_t n,
	const struct kern_adam_step *step)
{
	const struct kern_adam_step s = *step;

	for (size_t i = 0; i < n; i++) {
		float g = grad[i];
		float m = s.beta1 * first[i] + (1 - s.beta1) * g;
		float v = s.beta2 * second[i] + (1 - s.beta2) * g * g;

		first[i] = m;
		second[i] = v;
		params[i] = s.keep * params[i] - s.rate * m / (sqrtf(v) / s.root_bias + s.eps);
	}
}

void NAME(kern_sgd_row_, KERN_ISA)(float *restrict params, float *restrict velocity,
	const float *restrict grad, size_t n, float lr, float momentum)
{
	for (size_t i = 0; i < n; i++) {
		velocity[i] = momentum * velocity[i] + grad[i];
		params[i] -= lr * velocity[i];
	}
}
