/* SPDX-License-Identifier: Apache-2.0 */

/* Compiled once per instruction set (KERN_ISA); the compiler does the vectorising. fmaf() is said
 * where it is meant: the plain one, in a library's function, has the same bits. */
#include <math.h>
#include <string.h>

#include "base/cleanup.h"
#include "model/row_bf16.h"
#include "model/row_exp.h"
#include "model/row_gelu.h"
#include "model/row_lanes.h"

#define PASTE(a, b) a##b
#define NAME(stem, isa) PASTE(stem, isa)

/* Of Phi(x) + x phi(x) - 1/2, least |x| times its error. */
static const float slope_odd[] = { -4.607133576e-14f, 6.370698322e-12f, -3.994772209e-10f,
	1.511838598e-08f, -3.884823878e-07f, 7.240556433e-06f, -1.020530703e-04f, 1.113178592e-03f,
	-9.403900778e-03f, 5.971772193e-02f, -2.658861183e-01f, 7.978708910e-01f };

void NAME(kern_gelu_row_, KERN_ISA)(bf16 *dst, const bf16 *src, size_t n)
{
	/* Without a promise that they differ: where dst is src, element by element is right too. */
#pragma omp simd
	for (size_t i = 0; i < n; i++) {
		float x = bf16_widen(src[i]);

		dst[i] = bf16_narrow(gelu(x));
	}
}

void NAME(kern_gelu_grad_row_, KERN_ISA)(bf16 *restrict d, const bf16 *restrict x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		d[i] = bf16_narrow(
			bf16_widen(d[i]) *
			(.5f + odd_polynomial(bf16_widen(x[i]), slope_odd, ARRAY_SIZE(slope_odd))));
}

void NAME(kern_softmax_row_, KERN_ISA)(
	bf16 *restrict dst, float *restrict src, size_t n, size_t stride)
{
	const float max = row_max(src, n);
	const size_t whole = n / LANES * LANES, rest = n - whole;
	float lane[LANES] = { 0 }, last[LANES], sum = 0, factor;

	for (size_t i = 0; i < whole; i += LANES)
		exp_lanes(src + i, max, lane);
	/* What does not fill the lanes is filled up: element by element it would take as long as all
	 * the others. e^-87 more or less, eleven times, is no part of a sum of 1 or more. */
	for (unsigned j = 0; j < LANES; j++)
		last[j] = j < rest ? src[whole + j] : -INFINITY;
	exp_lanes(last, max, lane);
	for (unsigned j = 0; j < LANES; j++)
		sum += lane[j];
	factor = 1 / sum;
	for (size_t i = 0; i < whole; i++)
		dst[i] = bf16_narrow(src[i] * factor);
	for (unsigned j = 0; j < rest; j++)
		dst[whole + j] = bf16_narrow(last[j] * factor);
	memset(dst + n, 0, (stride - n) * sizeof(*dst));
}

void NAME(kern_norm_row_, KERN_ISA)(bf16 *restrict dst, const float *restrict src,
	const struct row_norm *norm, float stats[restrict 2])
{
	const float *restrict weight = norm->weight, *restrict bias = norm->bias;
	const size_t n = norm->n;
	const float mean = row_sum(src, n) / (float)n;
	const float variance = row_squares(src, n, mean) / (float)n;
	const float factor = 1 / sqrtf(variance + norm->eps);

	for (size_t i = 0; i < n; i++)
		dst[i] = bf16_narrow((src[i] - mean) * factor * weight[i] + bias[i]);
	stats[0] = mean;
	stats[1] = variance;
}

static inline void cut(bf16 *restrict dst, const float *restrict src, size_t patch,
	size_t n_patches, size_t stride)
{
	for (size_t i = 0; i < n_patches; i++)
		for (size_t j = 0; j < patch; j++)
			dst[i * stride + j] = bf16_narrow(src[i * patch + j]);
}

void NAME(kern_cut_row_, KERN_ISA)(bf16 *restrict dst, const float *restrict src, size_t patch,
	size_t n_patches, size_t stride)
{
	/* The usual one: without a loop over its pixels. */
	if (patch == 16)
		cut(dst, src, 16, n_patches, stride);
	else
		cut(dst, src, patch, n_patches, stride);
}
