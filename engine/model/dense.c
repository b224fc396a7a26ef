/* SPDX-License-Identifier: Apache-2.0 */
#include "model/dense.h"

#include <errno.h>

#include "model/vit_internal.h"

struct dense {
	struct op *forward, *plain; /* plain: without a bias */
	struct op *dx, *dw;
	size_t n_rows;
	uint32_t n_out;
};

static int init_ops(struct dense *dense, const struct vit *vit, int64_t n_in)
{
	const struct view x = view_2d((int64_t)dense->n_rows, n_in);
	const struct view y = view_2d((int64_t)dense->n_rows, dense->n_out);
	const struct view weight = view_2d(dense->n_out, n_in);
	struct op_matmul product = {
		.src = x,
		.weights = vit_view_transposed(weight),
		.dst = y,
	};
	int r;

	r = op_matmul_new(&dense->plain, vit->onednn, &product);
	product.bias = true;
	if (r == 0)
		r = op_matmul_new(&dense->forward, vit->onednn, &product);
	if (r == 0)
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

int dense_new(struct dense **ret_dense, const struct vit *vit, uint32_t n_rows, uint32_t n_out,
	uint32_t n_in)
{
	_cleanup_(dense_freep) struct dense *dense = calloc(1, sizeof(*dense));
	int r;

	if (!dense)
		return -ENOMEM;
	if (n_rows == 0 || n_out == 0 || n_in == 0)
		return -EINVAL;
	dense->n_rows = n_rows;
	dense->n_out = n_out;
	r = init_ops(dense, vit, n_in);
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
	op_free(dense->plain);
	op_free(dense->dx);
	op_free(dense->dw);
	free(dense);
}

int dense_forward(
	struct dense *dense, const float *weight, const float *bias, const float *x, float *y)
{
	if (!bias)
		return op_run_on(dense->plain, x, weight, y);
	op_bind(dense->forward, OP_BIAS, bias);
	return op_run_on(dense->forward, x, weight, y);
}

int dense_backward(struct dense *dense, const float *weight, const float *x, const float *dy,
	float *d_weight, float *d_bias, float *dx)
{
	int r;

	if (d_bias)
		row_column_sums(d_bias, dy, dense->n_rows, dense->n_out, PRECISION_F32);
	r = op_run_on(dense->dw, dy, x, d_weight);
	return r < 0 || !dx ? r : op_run_on(dense->dx, dy, weight, dx);
}
