/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_MICM_DENSE_H
#define KAMEN_LEARN_MICM_DENSE_H

#include <stdint.h>

#include "onednn/onednn.h"

/**
 * A trainable layer y = x W^T + b and its way back, for a fixed number of rows: products only. The
 * values and their gradients are the caller's; W (n_out, n_in), b (n_out) or NULL for a layer
 * without. On the thread that owns the struct onednn.
 */
struct micm_dense;

struct micm_dense_shape {
	uint32_t n_in, n_out;
	uint32_t rows;
	bool bias;
};

/** @return 0, -ENOMEM, -EIO */
int micm_dense_new(
	struct micm_dense **ret_dense, struct onednn *onednn, const struct micm_dense_shape *shape);
void micm_dense_free(struct micm_dense *dense);
DEFINE_CLEANUP(struct micm_dense *, micm_dense_free)

/** x (rows, n_in) -> y (rows, n_out) */
int micm_dense_forward(
	struct micm_dense *dense, const float *w, const float *b, const float *x, float *y);
/**
 * @param d_y       (rows, n_out)
 * @param d_x       (rows, n_in), overwritten; NULL: not wanted
 * @param d_w, d_b  like w and b; added to
 */
int micm_dense_backward(struct micm_dense *dense, const float *w, const float *x, const float *d_y,
	float *d_x, float *d_w, float *d_b);

#endif
