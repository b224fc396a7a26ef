/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_MODEL_ROW_INT8_H
#define KAMEN_MODEL_ROW_INT8_H

#include "model/row.h"
#include "onednn/onednn.h"

/*
 * What stands between two int8 products. Activations are u8, every row (a token) in steps of its own
 * from its own least and largest value: nothing is calibrated beforehand, and what an image gives
 * does not depend on what else is in its batch. The sums are exact, so that every instruction set
 * gives the same bits here too.
 */

/** A row of u8 is x = step (u - zero). */
struct row_steps {
	float step;
	int32_t zero; /* 1 to 254: 0 can be said exactly */
};

/** What a layer's s32 sums are worth: of a row in steps, column i is
 * step scale (acc steps[i] - zero offsets[i]) + shifts[i]. */
struct int8_layer {
	const float *steps;   /* (n) of the weights */
	const float *offsets; /* (n) steps times the sum of a column's weights */
	const float *shifts;  /* (n) bias times scale */
	float scale;
	size_t n;
};

/** dst = residual + what acc is worth, one row; dst may be residual. */
typedef void kern_int8_add_row_fn(float *dst, const float *residual, const int32_t *restrict acc,
	const struct int8_layer *layer, struct row_steps steps);
/** A layer norm as kern_norm_row_fn, one row. */
typedef struct row_steps kern_int8_norm_row_fn(
	uint8_t *restrict dst, const float *restrict src, const struct row_norm *norm);
/** The exact GELU of what acc is worth, one row; acc is used up. */
typedef struct row_steps kern_int8_gelu_row_fn(uint8_t *restrict dst, int32_t *restrict acc,
	const struct int8_layer *layer, struct row_steps steps);
/** What acc is worth, one row: f32 or bf16. */
typedef void kern_int8_widen_row_fn(void *restrict dst, const int32_t *restrict acc,
	const struct int8_layer *layer, struct row_steps steps);
/** One row of n, of f32 or bf16. */
typedef struct row_steps kern_int8_narrow_row_fn(
	uint8_t *restrict dst, const void *restrict src, size_t n);

struct kern_int8_impl {
	const char *name;
	const char *cpu; /* of cpu_has(); NULL: the reference */
	kern_int8_add_row_fn *add;
	kern_int8_norm_row_fn *norm;
	kern_int8_gelu_row_fn *gelu;
	kern_int8_widen_row_fn *widen, *widen_bf16;
	kern_int8_narrow_row_fn *narrow, *narrow_bf16;
};

/** Fastest first; name NULL ends it. */
extern const struct kern_int8_impl kern_int8_impls[];

/* The fastest one, in the caller's threads. steps (rows) are of what the product read, and then of
 * what is written for the next one to read. */

/** x = residual + what acc is worth, and its norm in u8. */
struct row_int8_norm {
	float *x;              /* (rows, D) */
	const float *residual; /* (rows every, D), rows 0, every, 2 every..., may be x */
	size_t every;
	const int32_t *acc; /* (rows, D); NULL: x is there already */
	const struct int8_layer *layer;
	const struct row_norm *norm; /* NULL: none */
	uint8_t *dst;                /* (rows, D) */
	struct row_steps *steps;
	size_t rows, width;
};
void row_int8_norm(const struct row_int8_norm *job);
/** acc (rows, n) to dst (rows, n) */
void row_int8_gelu(uint8_t *dst, int32_t *acc, const struct int8_layer *layer,
	struct row_steps *steps, size_t rows);
/** acc (rows, n) to dst (rows, n) in f32 or bf16 */
void row_int8_widen(void *dst, enum precision precision, const int32_t *acc,
	const struct int8_layer *layer, const struct row_steps *steps, size_t rows);
/** src (rows, n) in f32 or bf16 to dst (rows, n) */
void row_int8_narrow(uint8_t *dst, const void *src, enum precision precision,
	struct row_steps *steps, size_t rows, size_t n);

#define KERN_INT8_DECLARE(isa) \
	kern_int8_add_row_fn kern_int8_add_row_##isa; \
	kern_int8_norm_row_fn kern_int8_norm_row_##isa; \
	kern_int8_gelu_row_fn kern_int8_gelu_row_##isa; \
	kern_int8_widen_row_fn kern_int8_widen_row_##isa, kern_int8_widen_bf16_row_##isa; \
	kern_int8_narrow_row_fn kern_int8_narrow_row_##isa, kern_int8_narrow_bf16_row_##isa
KERN_INT8_DECLARE(c);
KERN_INT8_DECLARE(avx2);
KERN_INT8_DECLARE(avx512);

#endif
