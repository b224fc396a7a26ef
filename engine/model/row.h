/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_MODEL_ROW_H
#define KAMEN_MODEL_ROW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * What stands between two bf16 products: values in bf16 (the upper half of a float), computed in
 * f32. oneDNN's own take longer here than the products (a GELU behind fc1 four times as long).
 * Their approximations are far below bf16's 2^-8; every instruction set gives the same bits.
 */

typedef uint16_t bf16;

/** dst = x Phi(x) of n values; dst may be src. Within 5e-5, and 6e-6 |x|, of the exact one
 * before rounding. */
typedef void kern_gelu_row_fn(bf16 *dst, const bf16 *src, size_t n);
/** d *= (x Phi(x))' of n values. The factor is within 2e-4. */
typedef void kern_gelu_grad_row_fn(bf16 *restrict d, const bf16 *restrict x, size_t n);
/** dst = softmax(src), one row of n, and 0 from n to stride; src is used up. Within 1e-6 of its values
 * before rounding. */
typedef void kern_softmax_row_fn(bf16 *restrict dst, float *restrict src, size_t n, size_t stride);

/** A layer norm over rows of n. */
struct row_norm {
	const float *weight, *bias; /* (n) */
	float eps;
	size_t n;
};
/** dst = (src - mean) / sqrt(variance + eps) * weight + bias, one row; stats: mean and variance. */
typedef void kern_norm_row_fn(bf16 *restrict dst, const float *restrict src,
	const struct row_norm *norm, float stats[restrict 2]);

/** One row of pixels, n_patches times `patch` of them, cut up and rounded: patch i lies at i * stride. */
typedef void kern_cut_row_fn(bf16 *restrict dst, const float *restrict src, size_t patch,
	size_t n_patches, size_t stride);

struct kern_row_impl {
	const char *name;
	const char *cpu; /* of cpu_has(); NULL: the reference */
	kern_gelu_row_fn *gelu;
	kern_gelu_grad_row_fn *gelu_grad;
	kern_softmax_row_fn *softmax;
	kern_norm_row_fn *norm;
	kern_cut_row_fn *cut;
};

/** Fastest first; name NULL ends it. */
extern const struct kern_row_impl kern_row_impls[];
const struct kern_row_impl *kern_row_fastest(void);

/** The fastest one, in the caller's threads. */
void row_gelu(bf16 *dst, const bf16 *src, size_t n);
void row_gelu_grad(bf16 *d, const bf16 *x, size_t n);
/** rows of n, stride apart */
void row_softmax(bf16 *dst, float *src, size_t rows, size_t n, size_t stride);
/** mean, variance (rows): written unless NULL */
void row_normalise(bf16 *dst, const float *src, const struct row_norm *norm, size_t rows,
	float *mean, float *variance);

/** dst += src, n floats. */
static inline void row_add(float *restrict dst, const float *restrict src, size_t n)
{
	for (size_t i = 0; i < n; i++)
		dst[i] += src[i];
}

kern_gelu_row_fn kern_gelu_row_c, kern_gelu_row_avx2, kern_gelu_row_avx512;
kern_gelu_grad_row_fn kern_gelu_grad_row_c, kern_gelu_grad_row_avx2, kern_gelu_grad_row_avx512;
kern_softmax_row_fn kern_softmax_row_c, kern_softmax_row_avx2, kern_softmax_row_avx512;
kern_norm_row_fn kern_norm_row_c, kern_norm_row_avx2, kern_norm_row_avx512;
kern_cut_row_fn kern_cut_row_c, kern_cut_row_avx2, kern_cut_row_avx512;

#endif
