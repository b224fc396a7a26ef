/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_DENSE_H
#define KAMEN_LEARN_DENSE_H

#include <stdint.h>

#include "onednn/onednn.h"

/**
 * A trainable layer y = x W^T + b and its way back, for a fixed number of rows: products only. The
 * values and their gradients are the caller's; W (n_out, n_in), b (n_out) or NULL for a layer
 * without. On the thread that owns the struct onednn.
 */
struct dense;

struct dense_shape {
	uint32_t n_in, n_out;
	uint32_t rows;
	bool bias;
};

/** @return 0, -ENOMEM, -EIO */
int dense_new(struct dense **ret_dense, struct onednn *onednn, const struct dense_shape *shape);
void dense_free(struct dense *dense);
DEFINE_CLEANUP(struct dense *, dense_free)

/** x (rows, n_in) -> y (rows, n_out) */
int dense_forward(struct dense *dense, const float *w, const float *b, const float *x, float *y);
/**
 * @param d_y       (rows, n_out)
 * @param d_x       (rows, n_in), overwritten; NULL: not wanted
 * @param d_w, d_b  like w and b; added to
 */
int dense_backward(struct dense *dense, const float *w, const float *x, const float *d_y,
	float *d_x, float *d_w, float *d_b);

#endif
