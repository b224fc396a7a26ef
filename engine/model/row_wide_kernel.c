/* SPDX-License-Identifier: Apache-2.0 */

/* Compiled once per instruction set (KERN_ISA), as row_kernel.c. */
#include <math.h>

#include "model/row_exp.h"
#include "model/row_wide.h"

#define PASTE(a, b) a##b
#define NAME(stem, isa) PASTE(stem, isa)

/* Phi(-|x|) by Abramowitz and Stegun 7.1.26, from which Phi(x) comes without a difference of large
 * numbers. */
static inline float gelu(float x)
{
	const float size = fabsf(x);
	const float t = 1 / fmaf(.2316418882f, size, 1);
	float p = .5307027145f;

	p = fmaf(p, t, -.7265760135f);
	p = fmaf(p, t, .7107068705f);
	p = fmaf(p, t, -.142248368f);
	p = fmaf(p, t, .127414796f);
	/* |x| Phi(-|x|) */
	p = p * t * exp_down(-.5f * (size * size)) * size;
	return (x > 0 ? x : 0) - p;
}

void NAME(kern_wide_gelu_, KERN_ISA)(float *dst, const float *src, size_t n)
{
#pragma omp simd
	for (size_t i = 0; i < n; i++)
		dst[i] = gelu(src[i]);
}

void NAME(kern_wide_softmax_, KERN_ISA)(float *row, size_t n)
{
	const float max = row_max(row, n);
	const size_t whole = n / LANES * LANES, rest = n - whole;
	float lane[LANES] = { 0 }, last[LANES], sum = 0, factor;

	for (size_t i = 0; i < whole; i += LANES)
		exp_lanes(row + i, max, lane);
	/* Filled up: e^-87 more or less is no part of a sum of 1 or more. */
	for (unsigned j = 0; j < LANES; j++)
		last[j] = j < rest ? row[whole + j] : -INFINITY;
	exp_lanes(last, max, lane);
	for (unsigned j = 0; j < LANES; j++)
		sum += lane[j];
	factor = 1 / sum;
	for (size_t i = 0; i < whole; i++)
		row[i] *= factor;
	for (unsigned j = 0; j < rest; j++)
		row[whole + j] = last[j] * factor;
}

void NAME(kern_wide_norm_, KERN_ISA)(
	float *restrict dst, const float *restrict src, const struct row_norm *norm)
{
	const float *restrict weight = norm->weight, *restrict bias = norm->bias;
	const size_t n = norm->n;
	const float mean = row_sum(src, n) / (float)n;
	const float factor = 1 / sqrtf(row_squares(src, n, mean) / (float)n + norm->eps);

	for (size_t i = 0; i < n; i++)
		dst[i] = (src[i] - mean) * factor * weight[i] + bias[i];
}

void NAME(kern_wide_add_, KERN_ISA)(float *dst, const float *a, const float *b, size_t n)
{
#pragma omp simd
	for (size_t i = 0; i < n; i++)
		dst[i] = a[i] + b[i];
}
