/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "learn/micm_dense.h"
#include "model/row_grad.h"
#include "onednn/op.h"

struct micm_dense {
	struct micm_dense_shape shape;
	struct op *forward, *d_x, *d_w;
};

static struct view transposed(struct view view)
{
	return (struct view){
		.n_dims = 2,
		.dims = { view.dims[1], view.dims[0] },
		.strides = { view.strides[1], view.strides[0] },
	};
}

int micm_dense_new(
	struct micm_dense **ret_dense, struct onednn *onednn, const struct micm_dense_shape *shape)
{
	_cleanup_(micm_dense_freep) struct micm_dense *dense = calloc(1, sizeof(*dense));
	const struct view x = view_2d(shape->rows, shape->n_in);
	const struct view y = view_2d(shape->rows, shape->n_out);
	const struct view w = view_2d(shape->n_out, shape->n_in);
	int r;

	if (!dense)
		return -ENOMEM;
	dense->shape = *shape;
	r = op_matmul_new(&dense->forward, onednn,
		&(struct op_matmul){
			.src = x,
			.weights = transposed(w),
			.dst = y,
			.bias = shape->bias,
		});
	if (r == 0)
		r = op_matmul_new(&dense->d_x, onednn,
			&(struct op_matmul){ .src = y, .weights = w, .dst = x });
	if (r == 0)
		r = op_matmul_new(&dense->d_w, onednn,
			&(struct op_matmul){
				.src = transposed(y),
				.weights = x,
				.dst = w,
				.then = OP_THEN_ADD,
			});
	if (r < 0)
		return r;
	*ret_dense = TAKE_PTR(dense);
	return 0;
}

void micm_dense_free(struct micm_dense *dense)
{
	if (!dense)
		return;
	op_free(dense->d_w);
	op_free(dense->d_x);
	op_free(dense->forward);
	free(dense);
}

int micm_dense_forward(
	struct micm_dense *dense, const float *w, const float *b, const float *x, float *y)
{
	if (dense->shape.bias)
		op_bind(dense->forward, OP_BIAS, b);
	return op_run_on(dense->forward, x, w, y);
}

int micm_dense_backward(struct micm_dense *dense, const float *w, const float *x, const float *d_y,
	float *d_x, float *d_w, float *d_b)
{
	int r = 0;

	if (d_x)
		r = op_run_on(dense->d_x, d_y, w, d_x);
	if (r == 0)
		r = op_run_on(dense->d_w, d_y, x, d_w);
	if (r == 0 && dense->shape.bias)
		row_column_sums(d_b, d_y, dense->shape.rows, dense->shape.n_out, PRECISION_F32);
	return r;
}
