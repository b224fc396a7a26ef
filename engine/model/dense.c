/* SPDX-License-Identifier: Apache-2.0 */
#include "model/dense.h"

#include <errno.h>

#include "model/vit_internal.h"

struct dense {
	struct dense_shape shape;
	struct op *forward;
	struct op *dx, *dw; /* NULL where it is forward only */
};

static int init_ops(struct dense *dense, const struct vit *vit)
{
	const struct dense_shape *shape = &dense->shape;
	const struct view x = view_2d(shape->n_rows, shape->n_in);
	const struct view y = view_2d(shape->n_rows, shape->n_out);
	const struct view weight = view_2d(shape->n_out, shape->n_in);
	int r;

	r = op_matmul_new(&dense->forward, vit->onednn,
		&(struct op_matmul){
			.src = x,
			.weights = vit_view_transposed(weight),
			.dst = y,
			.bias = !shape->no_bias,
		});
	if (r < 0 || shape->forward_only)
		return r;
	r = op_matmul_new(&dense->dx, vit->onednn,
		&(struct op_matmul){ .src = y, .weights = weight, .dst = x });
	if (r < 0)
		return r;
	return op_matmul_new(&dense->dw, vit->onednn,
		&(struct op_matmul){
			.src = vit_view_transposed(y),
			.weights = x,
			.dst = weight,
			.then = OP_THEN_ADD,
		});
}

int dense_new(struct dense **ret_dense, const struct vit *vit, const struct dense_shape *shape)
{
	_cleanup_(dense_freep) struct dense *dense = calloc(1, sizeof(*dense));
	int r;

	if (!dense)
		return -ENOMEM;
	if (shape->n_rows == 0 || shape->n_out == 0 || shape->n_in == 0)
		return -EINVAL;
	dense->shape = *shape;
	r = init_ops(dense, vit);
	if (r < 0)
		return r;

	*ret_dense = TAKE_PTR(dense);
	return 0;
}

void dense_free(struct dense *dense)
{
	if (!dense)
		return;
	op_free(dense->forward);
	op_free(dense->dx);
	op_free(dense->dw);
	free(dense);
}

int dense_forward(
	struct dense *dense, const float *weight, const float *bias, const float *x, float *y)
{
	if (!bias != dense->shape.no_bias)
		return -EINVAL;
	if (bias)
		op_bind(dense->forward, OP_BIAS, bias);
	return op_run_on(dense->forward, x, weight, y);
}

int dense_backward(struct dense *dense, const float *weight, const float *x, const float *dy,
	float *d_weight, float *d_bias, float *dx)
{
	int r;

	if (dense->shape.forward_only)
		return -EINVAL;
	if (d_bias)
		row_column_sums(d_bias, dy, dense->shape.n_rows, dense->shape.n_out, PRECISION_F32);
	r = op_run_on(dense->dw, dy, x, d_weight);
	return r < 0 || !dx ? r : op_run_on(dense->dx, dy, weight, dx);
}
