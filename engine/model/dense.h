/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_MODEL_DENSE_H
#define KAMEN_MODEL_DENSE_H

#include "model/vit.h"

/**
 * A small linear layer that is learnt, y = x W^T + b, in f32: heads, and what leads into and out of a
 * decoder. It has no values of its own, so nothing is to be packed when they change: W (n_out, n_in)
 * and b (n_out) are the caller's. Runs on the model's oneDNN, which must outlive it.
 */
struct dense;

/** What is not asked for is not built either. */
struct dense_shape {
	uint32_t n_rows, n_out, n_in;
	bool no_bias;
	bool forward_only;
};

/** @return 0, -EINVAL: a size of 0, -ENOMEM, -EIO */
int dense_new(struct dense **ret_dense, const struct vit *vit, const struct dense_shape *shape);
void dense_free(struct dense *dense);
DEFINE_CLEANUP(struct dense *, dense_free)

/** x (n_rows, n_in), y (n_rows, n_out); bias NULL where there is none. -EIO */
int dense_forward(
	struct dense *dense, const float *weight, const float *bias, const float *x, float *y);
/**
 * dy (n_rows, n_out). Not of one that is forward only.
 *
 * @param d_weight, d_bias  added to; d_bias NULL: there is none
 * @param dx                (n_rows, n_in), overwritten; NULL: not wanted
 */
int dense_backward(struct dense *dense, const float *weight, const float *x, const float *dy,
	float *d_weight, float *d_bias, float *dx);

#endif
