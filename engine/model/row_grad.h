/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_MODEL_ROW_GRAD_H
#define KAMEN_MODEL_ROW_GRAD_H

#include "model/row.h"
#include "onednn/onednn.h"

/*
 * The way back between two products, in one pass over memory each: what oneDNN does in three or four.
 * Every instruction set gives the same bits.
 */

/** One row of a norm's way back: dst = residual + dL/dx. */
struct norm_grad_row {
	float *dst;            /* may be residual */
	bf16 *rounded;         /* dst in bf16; NULL: not wanted */
	const float *residual; /* NULL: 0 */
	const float *dy, *x;
	float mean, inverse; /* of x: 1 / sqrt(variance + eps) */
};
typedef void kern_norm_grad_row_fn(
	const struct norm_grad_row *row, const float *restrict gamma, size_t n);
/** d = p (d - sum d p), one row of n. */
typedef void kern_softmax_grad_row_fn(bf16 *restrict d, const bf16 *restrict p, size_t n);

/** So many columns at most are added up at a time: their sums stay in registers. */
#define ROW_SUM_COLUMNS 96u
/** sums (n) += those of rows that lie `stride` apart; n at most ROW_SUM_COLUMNS. */
typedef void kern_column_sums_fn(
	float *restrict sums, const void *restrict src, size_t rows, size_t n, size_t stride);

/** What a norm's own gradient is made of. */
struct norm_sums {
	float *d_gamma, *d_beta;      /* (n), added to */
	const float *dy, *x;          /* (rows, n) */
	const float *mean, *variance; /* (rows) of x */
	float eps;
	size_t rows, n;
};
/** Columns at..at+n, ROW_SUM_COLUMNS at most. */
typedef void kern_norm_sums_fn(const struct norm_sums *job, size_t at, size_t n);

struct kern_row_grad_impl {
	const char *name;
	const char *cpu; /* of cpu_has(); NULL: the reference */
	kern_norm_grad_row_fn *norm;
	kern_softmax_grad_row_fn *softmax;
	kern_column_sums_fn *sums[N_PRECISIONS]; /* of src in that */
	kern_norm_sums_fn *norm_sums;
};

/** Fastest first; name NULL ends it. */
extern const struct kern_row_grad_impl kern_row_grad_impls[];

/** (rows, n), in the caller's threads. */
struct row_norm_grad {
	float *dst;            /* (rows, n); may be residual where that has every row */
	bf16 *rounded;         /* (rows, n); NULL: not wanted */
	const float *residual; /* (rows / every, n): of rows 0, every, 2 every...; NULL: of none */
	size_t every;
	const float *dy, *x;          /* (rows, n) */
	const float *mean, *variance; /* (rows) */
	const float *gamma;           /* (n) */
	float eps;
	size_t rows, n;
};
void row_norm_grad(const struct row_norm_grad *job);
/** Of y = (x - mean) / sqrt(variance + eps) * gamma + beta. */
void row_norm_sums(const struct norm_sums *job);
/** rows of n */
void row_softmax_grad(bf16 *d, const bf16 *p, size_t rows, size_t n);
/** sums (n) += the columns of src (rows, n). */
void row_column_sums(float *sums, const void *src, size_t rows, size_t n, enum precision precision);

#define KERN_ROW_GRAD_DECLARE(isa) \
	kern_norm_grad_row_fn kern_norm_grad_row_##isa; \
	kern_softmax_grad_row_fn kern_softmax_grad_row_##isa; \
	kern_column_sums_fn kern_column_sums_##isa, kern_column_sums_bf16_##isa; \
	kern_norm_sums_fn kern_norm_sums_##isa
KERN_ROW_GRAD_DECLARE(c);
KERN_ROW_GRAD_DECLARE(avx2);
KERN_ROW_GRAD_DECLARE(avx512);

#endif
