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

struct operands {
	dnnl_memory_desc_t src, weights, bias, scale, dst;
};

/* Of the columns that it takes. */
static dnnl_memory_desc_t packed_desc(const struct op_matmul *matmul)
{
	return matmul->n_columns ? packed_columns_desc(matmul->packed, matmul->n_columns)
				 : matmul->packed->weights;
}

static int matmul_operands(struct operands *ret, const struct op_matmul *matmul)
{
	const int n_dims = matmul->dst.n_dims;
	const struct view bias = row_view(n_dims, matmul->dst.dims[n_dims - 1]);
	const struct view scale = row_view(n_dims, 1);
	int r = view_desc_src(&ret->src, &matmul->src);

	if (r == 0 && matmul->packed)
		ret->weights = packed_desc(matmul);
	else if (r == 0)
		r = view_desc(&ret->weights, &matmul->weights);
	if (r == 0)
		r = view_desc(&ret->bias, &bias);
	if (r == 0)
		r = view_desc(&ret->scale, &scale);
	if (r == 0)
		r = view_desc_dst(&ret->dst, &matmul->dst, matmul->src.precision);
	return r;
}

static bool is_dense(const struct view *view)
{
	return view->n_dims == 2 && view->strides[1] == 1 && view->strides[0] == view->dims[1] &&
	       view->precision == PRECISION_F32;
}

/* With weights that lie as a convolution's. */
static int pixel_operands(struct operands *ret, const struct op_matmul *matmul)
{
	const int64_t rows = matmul->dst.dims[0], n = matmul->dst.dims[1];
	const struct view bias = { .n_dims = 1, .dims = { n }, .strides = { 1 } };
	const struct view scale = row_view(4, 1);
	int r = is_dense(&matmul->src) && is_dense(&matmul->dst)
			? pixels_desc(&ret->src, rows, matmul->src.dims[1])
			: -EINVAL;

	ret->weights = packed_desc(matmul);
	if (r == 0)
		r = view_desc(&ret->bias, &bias);
	if (r == 0)
		r = view_desc(&ret->scale, &scale);
	return r < 0 ? r : pixels_desc(&ret->dst, rows, n);
}

static int product_new(struct op **ret_op, struct onednn *onednn, const struct op_matmul *matmul)
{
	_cleanup_(attr_freep) dnnl_primitive_attr_t attr = NULL;
	const bool convolves = matmul->packed && matmul->packed->convolves;
	const dnnl_dims_t ones = { 1, 1 }, none = { 0 };
	const dnnl_memory_desc_t *bias;
	dnnl_convolution_desc_t convolution;
	dnnl_matmul_desc_t product;
	struct operands o;
	int r;

	r = convolves ? pixel_operands(&o, matmul) : matmul_operands(&o, matmul);
	if (r == 0)
		r = matmul_attr(&attr, matmul, &o.scale);
	if (r < 0)
		return r;
	bias = matmul->bias ? &o.bias : NULL;
	r = dnnl_errno(convolves
			       ? dnnl_convolution_forward_desc_init(&convolution,
					 dnnl_forward_inference, dnnl_convolution_direct, &o.src,
					 &o.weights, bias, &o.dst, ones, none, none)
			       : dnnl_matmul_desc_init(&product, &o.src, &o.weights, bias, &o.dst));
	if (r < 0)
		return r;
	return op_finish(ret_op, onednn,
		&(struct op_plan){
			.desc = convolves ? (const_dnnl_op_desc_t)&convolution
					  : (const_dnnl_op_desc_t)&product,
			.attr = attr,
			.descs = {
				[OP_SRC] = &o.src,
				[OP_WEIGHTS] = &o.weights,
				[OP_BIAS] = bias,
				[OP_SCALE] = matmul->scale ? &o.scale : NULL,
				[OP_DST] = &o.dst,
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
