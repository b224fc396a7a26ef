/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_ONEDNN_OP_H
#define KAMEN_ONEDNN_OP_H

#include <stdbool.h>
#include <stdint.h>

#include "onednn/onednn.h"
#include "onednn/packed.h"

#define VIEW_MAX_DIMS 4

/** Shape of a tensor; strides in elements, last dimension first to move. */
struct view {
	int n_dims;
	int64_t dims[VIEW_MAX_DIMS];
	int64_t strides[VIEW_MAX_DIMS];
	enum precision precision;
};

static inline struct view view_2d(int64_t rows, int64_t cols)
{
	return (struct view){ .n_dims = 2, .dims = { rows, cols }, .strides = { cols, 1 } };
}

static inline struct view view_in(struct view view, enum precision precision)
{
	view.precision = precision;
	return view;
}

/** One oneDNN primitive with its arguments. Runs on the thread that owns the struct onednn. */
struct op;

enum op_arg {
	OP_SRC,
	OP_WEIGHTS,
	OP_BIAS,
	OP_SCALE, /* matmul: the f32 scalar of the first post-op; norm: gamma */
	OP_SHIFT, /* norm: beta */
	OP_MEAN,
	OP_VARIANCE,
	OP_DST,
	OP_DIFF_SRC,
	OP_DIFF_DST,
	OP_N_ARGS,
};

enum op_then { OP_THEN_NOTHING, OP_THEN_GELU, OP_THEN_ADD };

/** dst = then((src weights + bias) * scale * factor)
 *
 * Source and weights in the same precision, the destination in any; bias and scale f32. In int8 the
 * source is u8 and the destination the s32 sums, whatever its view says; nothing else is part of it:
 * whoever reads the sums knows what they are worth. */
struct op_matmul {
	struct view src;             /* (..., M, K) */
	struct view weights;         /* (..., K, N), unless packed */
	const struct packed *packed; /* shape only: op_use() says which, of the same shape; rows of
				      * src and dst then lie one behind the other */
	uint32_t
		n_columns; /* of packed, whole blocks: op_use_columns() says which; 0: all of them */
	struct view dst;   /* (..., M, N) */
	bool bias;         /* OP_BIAS (N) */
	bool scale;        /* OP_SCALE, one scalar */
	float factor;      /* fixed; 0 means 1 */
	enum op_then then; /* OP_THEN_ADD: dst += */
};

int op_matmul_new(struct op **ret_op, struct onednn *onednn, const struct op_matmul *matmul);

/** Rows of n: dst = (src - mean) / sqrt(var + eps) * OP_SCALE + OP_SHIFT. keep: writes OP_MEAN and
 * OP_VARIANCE (rows), which the way back reads (model/row_grad.h). */
int op_norm_new(
	struct op **ret_op, struct onednn *onednn, int64_t rows, int64_t n, float eps, bool keep);

/** Rows of n; OP_SRC may be OP_DST. */
int op_softmax_new(struct op **ret_op, struct onednn *onednn, int64_t rows, int64_t n);
/** OP_DST (the forward's), OP_DIFF_DST -> OP_DIFF_SRC, which may be OP_DIFF_DST */
int op_softmax_backward_new(struct op **ret_op, struct onednn *onednn, int64_t rows, int64_t n);

/** Exact GELU. */
int op_gelu_new(struct op **ret_op, struct onednn *onednn, int64_t rows, int64_t n);
/** OP_SRC (before the GELU), OP_DIFF_DST -> OP_DIFF_SRC, which may be OP_DIFF_DST */
int op_gelu_backward_new(struct op **ret_op, struct onednn *onednn, int64_t rows, int64_t n);

/** OP_DST = OP_SRC + OP_WEIGHTS, all (rows, n); OP_DST may be OP_SRC. */
int op_add_new(struct op **ret_op, struct onednn *onednn, int64_t rows, int64_t n);

void op_free(struct op *op);
DEFINE_CLEANUP(struct op *, op_free)

/** Points an argument at plain memory that outlives the next op_run(). What only reads is not
 * written through the pointer. A failure shows in op_run(). */
void op_bind(struct op *op, enum op_arg arg, const void *data);
/** Points OP_WEIGHTS at packed weights. */
void op_use(struct op *op, const struct packed *packed);

/** Points OP_WEIGHTS at the op's number of columns from `first`, where a block begins. */
void op_use_columns(struct op *op, const struct packed *packed, uint32_t first);
/** Whether oneDNN has nothing better than its reference loops. */
bool op_is_slow(const struct op *op);

/** @return 0, or -EIO: oneDNN refused, what is to be written is undefined */
int op_run(struct op *op);
/** Binds source, weights and destination, and runs. */
int op_run_on(struct op *op, const void *src, const void *weights, void *dst);

/** oneDNN's name of the implementation. */
const char *op_implementation(const struct op *op);

#endif
