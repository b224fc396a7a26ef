/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "onednn/dnnl_glue.h"

/* (1, ..., 1, n) for a product of n_dims dimensions */
static struct view row_view(int n_dims, int64_t n)
{
	struct view view = { .n_dims = n_dims };

	for (int i = 0; i < n_dims; i++) {
		view.dims[i] = 1;
		view.strides[i] = n;
	}
	view.dims[n_dims - 1] = n;
	view.strides[n_dims - 1] = 1;
	return view;
}

static int append_post_ops(
	dnnl_post_ops_t ops, const struct op_matmul *matmul, const dnnl_memory_desc_t *scalar)
{
	int r = 0;

	if (matmul->scale)
		r = dnnl_errno(dnnl_post_ops_append_binary(ops, dnnl_binary_mul, scalar));
	if (r == 0 && matmul->factor != 0)
		r = dnnl_errno(dnnl_post_ops_append_eltwise(
			ops, 1, dnnl_eltwise_linear, matmul->factor, 0));
	if (r == 0 && matmul->then == OP_THEN_GELU)
		r = dnnl_errno(dnnl_post_ops_append_eltwise(ops, 1, dnnl_eltwise_gelu_erf, 0, 0));
	if (r == 0 && matmul->then == OP_THEN_ADD)
		r = dnnl_errno(dnnl_post_ops_append_sum(ops, 1));
	return r;
}

static int matmul_attr(dnnl_primitive_attr_t *ret_attr, const struct op_matmul *matmul,
	const dnnl_memory_desc_t *scalar)
{
	_cleanup_(attr_freep) dnnl_primitive_attr_t attr = NULL;
	_cleanup_(post_ops_freep) dnnl_post_ops_t ops = NULL;
	int r;

	r = user_scratchpad_attr(&attr);
	if (r < 0)
		return r;
	/* Never bf16 behind our back, whatever the environment asks for. */
	r = dnnl_errno(dnnl_primitive_attr_set_fpmath_mode(attr, dnnl_fpmath_mode_strict));
	if (r == 0)
		r = dnnl_errno(dnnl_post_ops_create(&ops));
	if (r == 0)
		r = append_post_ops(ops, matmul, scalar);
	if (r == 0)
		r = dnnl_errno(dnnl_primitive_attr_set_post_ops(attr, ops));
	if (r < 0)
		return r;
	*ret_attr = TAKE_PTR(attr);
	return 0;
}

/* Of the columns that it takes. */
static dnnl_memory_desc_t packed_desc(const struct op_matmul *matmul)
{
	return matmul->n_columns ? packed_columns_desc(matmul->packed, matmul->n_columns)
				 : matmul->packed->weights;
}

/* With weights that lie as a convolution's. */
static int pointwise_new(struct op **ret_op, struct onednn *onednn, const struct op_matmul *matmul)
{
	_cleanup_(attr_freep) dnnl_primitive_attr_t attr = NULL;
	const int64_t rows = matmul->dst.dims[0], n = matmul->dst.dims[1];
	const struct view bias_view = { .n_dims = 1, .dims = { n }, .strides = { 1 } };
	const struct view scalar_view = row_view(4, 1);
	const dnnl_memory_desc_t weights = packed_desc(matmul);
	const dnnl_dims_t ones = { 1, 1 }, none = { 0 };
	dnnl_memory_desc_t src, bias, scalar, dst;
	dnnl_convolution_desc_t desc;
	int r;

	r = pixels_desc(&src, rows, matmul->src.dims[1]);
	if (r == 0)
		r = pixels_desc(&dst, rows, n);
	if (r == 0)
		r = view_desc(&bias, &bias_view);
	if (r == 0)
		r = view_desc(&scalar, &scalar_view);
	if (r == 0)
		r = matmul_attr(&attr, matmul, &scalar);
	if (r == 0)
		r = dnnl_errno(dnnl_convolution_forward_desc_init(&desc, dnnl_forward_inference,
			dnnl_convolution_direct, &src, &weights, matmul->bias ? &bias : NULL, &dst,
			ones, none, none));
	if (r < 0)
		return r;
	return op_finish(ret_op, onednn,
		&(struct op_plan){
			.desc = &desc,
			.attr = attr,
			.descs = {
				[OP_SRC] = &src,
				[OP_WEIGHTS] = &weights,
				[OP_BIAS] = matmul->bias ? &bias : NULL,
				[OP_SCALE] = matmul->scale ? &scalar : NULL,
				[OP_DST] = &dst,
			},
		});
}

static int product_new(struct op **ret_op, struct onednn *onednn, const struct op_matmul *matmul)
{
	_cleanup_(attr_freep) dnnl_primitive_attr_t attr = NULL;
	struct view columns_view =
		row_view(matmul->dst.n_dims, matmul->dst.dims[matmul->dst.n_dims - 1]);
	struct view scalar_view = row_view(matmul->dst.n_dims, 1);
	dnnl_memory_desc_t src, weights, columns, scalar, dst;
	dnnl_matmul_desc_t desc;
	int r;

	if (matmul->packed && matmul->packed->convolves)
		return pointwise_new(ret_op, onednn, matmul);
	r = view_desc_src(&src, &matmul->src);
	if (r == 0 && matmul->packed)
		weights = packed_desc(matmul);
	else if (r == 0)
		r = view_desc(&weights, &matmul->weights);
	if (r == 0)
		r = view_desc(&columns, &columns_view);
	if (r == 0)
		r = view_desc(&scalar, &scalar_view);
	if (r == 0)
		r = view_desc_dst(&dst, &matmul->dst, matmul->src.precision);
	if (r == 0)
		r = matmul_attr(&attr, matmul, &scalar);
	if (r == 0)
		r = dnnl_errno(dnnl_matmul_desc_init(
			&desc, &src, &weights, matmul->bias ? &columns : NULL, &dst));
	if (r < 0)
		return r;

	return op_finish(ret_op, onednn,
		&(struct op_plan){
			.desc = &desc,
			.attr = attr,
			.descs = {
				[OP_SRC] = &src,
				[OP_WEIGHTS] = &weights,
				[OP_BIAS] = matmul->bias ? &columns : NULL,
				[OP_SCALE] = matmul->scale ? &scalar : NULL,
				[OP_DST] = &dst,
			},
		});
}

/* The product into memory of its own, which a second primitive adds to the destination. */
static int two_step_new(struct op **ret_op, struct onednn *onednn, const struct op_matmul *matmul)
{
	const int64_t rows = matmul->dst.dims[0], n = matmul->dst.dims[1];
	_cleanup_(op_freep) struct op *op = NULL, *tail = NULL;
	struct op_matmul product = *matmul;
	int r;

	product.then = OP_THEN_NOTHING;
	r = product_new(&op, onednn, &product);
	if (r < 0)
		return r;
	r = op_add_new(&tail, onednn, rows, n);
	if (r < 0)
		return r;
	op->product = aligned_alloc(64, ((size_t)(rows * n) * sizeof(float) + 63) & ~(size_t)63);
	if (!op->product)
		return -ENOMEM;
	op_bind(op, OP_DST, op->product);
	op_bind(tail, OP_WEIGHTS, op->product);
	op->tail = TAKE_PTR(tail);
	*ret_op = TAKE_PTR(op);
	return 0;
}

int op_matmul_new(struct op **ret_op, struct onednn *onednn, const struct op_matmul *matmul)
{
	_cleanup_(op_freep) struct op *op = NULL;
	int r;

	r = product_new(&op, onednn, matmul);
	if (r < 0)
		return r;
	/* Without AVX-512 a sum that is not the first post-op means the reference loops. */
	if (matmul->then == OP_THEN_ADD && matmul->dst.n_dims == 2 && op_is_slow(op)) {
		onednn->n_slow--;
		return two_step_new(ret_op, onednn, matmul);
	}
	*ret_op = TAKE_PTR(op);
	return 0;
}
