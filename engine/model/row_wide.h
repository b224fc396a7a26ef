/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_MODEL_ROW_WIDE_H
#define KAMEN_MODEL_ROW_WIDE_H

#include "model/row.h"

/* What stands between two f32 products, on a row that one of them has just written; every instruction
 * set gives the same bits. */

/** dst = x Phi(x) of n values; dst may be src. Within 3e-7 |x| of the exact one. */
typedef void kern_wide_gelu_fn(float *dst, const float *src, size_t n);
/** One row of n in place. Within 1e-6 of its values. */
typedef void kern_wide_softmax_fn(float *row, size_t n);
/** dst = (src - mean) / sqrt(variance + eps) * weight + bias, one row */
typedef void kern_wide_norm_fn(
	float *restrict dst, const float *restrict src, const struct row_norm *norm);
/** dst = a + b of n values; dst may be a or b. */
typedef void kern_wide_add_fn(float *dst, const float *a, const float *b, size_t n);
/* Rows that are turned at a time. */
#define TURN_ROWS 8u
/** dst (n, TURN_ROWS) = src (TURN_ROWS, n), whose rows lie `stride` values apart; n is a multiple of
 * TURN_ROWS. */
typedef void kern_wide_turn_fn(
	float *restrict dst, const float *restrict src, size_t stride, size_t n);

struct kern_wide_impl {
	const char *name;
	const char *cpu; /* of cpu_has(); NULL: the reference */
	kern_wide_gelu_fn *gelu;
	kern_wide_softmax_fn *softmax;
	kern_wide_norm_fn *norm;
	kern_wide_add_fn *add;
	kern_wide_turn_fn *turn;
};

/** Fastest first; name NULL ends it. */
extern const struct kern_wide_impl kern_wide_impls[];
const struct kern_wide_impl *kern_wide_fastest(void);

kern_wide_gelu_fn kern_wide_gelu_c, kern_wide_gelu_avx2, kern_wide_gelu_avx512;
kern_wide_softmax_fn kern_wide_softmax_c, kern_wide_softmax_avx2, kern_wide_softmax_avx512;
kern_wide_norm_fn kern_wide_norm_c, kern_wide_norm_avx2, kern_wide_norm_avx512;
kern_wide_add_fn kern_wide_add_c, kern_wide_add_avx2, kern_wide_add_avx512;
kern_wide_turn_fn kern_wide_turn_c, kern_wide_turn_avx2;

#endif
