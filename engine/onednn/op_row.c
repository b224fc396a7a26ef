/* SPDX-License-Identifier: Apache-2.0 */
#include "onednn/dnnl_glue.h"

/* Ops that work on rows of a dense (rows, n). */

static int dense_desc(dnnl_memory_desc_t *ret_desc, int64_t rows, int64_t n)
{
	struct view view = view_2d(rows, n);

	return view_desc(ret_desc, &view);
}

static int vector_desc(dnnl_memory_desc_t *ret_desc, int64_t n)
{
	struct view view = { .n_dims = 1, .dims = { n }, .strides = { 1 } };

	return view_desc(ret_desc, &view);
}

int op_norm_new(
	struct op **ret_op, struct onednn *onednn, int64_t rows, int64_t n, float eps, bool keep)
{
	_cleanup_(attr_freep) dnnl_primitive_attr_t attr = NULL;
	dnnl_memory_desc_t data, stats, vector;
	dnnl_layer_normalization_desc_t desc;
	int r;

	r = dense_desc(&data, rows, n);
	if (r == 0)
		r = vector_desc(&stats, rows);
	if (r == 0)
		r = vector_desc(&vector, n);
	if (r == 0)
		r = dnnl_errno(dnnl_layer_normalization_forward_desc_init(&desc,
			keep ? dnnl_forward_training : dnnl_forward_inference, &data, &stats, eps,
			dnnl_use_scale | dnnl_use_shift));
	if (r == 0)
		r = user_scratchpad_attr(&attr);
	if (r < 0)
		return r;
	return op_finish(ret_op, onednn,
		&(struct op_plan){
			.desc = &desc,
			.attr = attr,
			.descs = {
				[OP_SRC] = &data,
				[OP_SCALE] = &vector,
				[OP_SHIFT] = &vector,
				[OP_MEAN] = keep ? &stats : NULL,
				[OP_VARIANCE] = keep ? &stats : NULL,
				[OP_DST] = &data,
			},
		});
}

int op_softmax_new(struct op **ret_op, struct onednn *onednn, int64_t rows, int64_t n)
{
	_cleanup_(attr_freep) dnnl_primitive_attr_t attr = NULL;
	dnnl_softmax_desc_t desc;
	dnnl_memory_desc_t data;
	int r;

	r = dense_desc(&data, rows, n);
	if (r == 0)
		r = user_scratchpad_attr(&attr);
	if (r == 0)
		r = dnnl_errno(
			dnnl_softmax_forward_desc_init(&desc, dnnl_forward_inference, &data, 1));
	if (r < 0)
		return r;
	return op_finish(ret_op, onednn,
		&(struct op_plan){
			.desc = &desc,
			.attr = attr,
			.descs = { [OP_SRC] = &data, [OP_DST] = &data },
		});
}

int op_softmax_backward_new(struct op **ret_op, struct onednn *onednn, int64_t rows, int64_t n)
{
	_cleanup_(attr_freep) dnnl_primitive_attr_t attr = NULL;
	_cleanup_(pd_freep) dnnl_primitive_desc_t hint = NULL;
	dnnl_softmax_desc_t forward, desc;
	dnnl_memory_desc_t data;
	int r;

	r = dense_desc(&data, rows, n);
	if (r == 0)
		r = user_scratchpad_attr(&attr);
	if (r == 0)
		r = dnnl_errno(
			dnnl_softmax_forward_desc_init(&forward, dnnl_forward_training, &data, 1));
	if (r == 0)
		r = dnnl_errno(
			dnnl_primitive_desc_create(&hint, &forward, attr, onednn->engine, NULL));
	if (r == 0)
		r = dnnl_errno(dnnl_softmax_backward_desc_init(&desc, &data, &data, 1));
	if (r < 0)
		return r;
	return op_finish(ret_op, onednn,
		&(struct op_plan){
			.desc = &desc,
			.attr = attr,
			.hint = hint,
			.descs = { [OP_DST] = &data, [OP_DIFF_DST] = &data, [OP_DIFF_SRC] = &data },
		});
}

int op_gelu_new(struct op **ret_op, struct onednn *onednn, int64_t rows, int64_t n)
{
	_cleanup_(attr_freep) dnnl_primitive_attr_t attr = NULL;
	dnnl_eltwise_desc_t desc;
	dnnl_memory_desc_t data;
	int r;

	r = dense_desc(&data, rows, n);
	if (r == 0)
		r = user_scratchpad_attr(&attr);
	if (r == 0)
		r = dnnl_errno(dnnl_eltwise_forward_desc_init(
			&desc, dnnl_forward_training, dnnl_eltwise_gelu_erf, &data, 0, 0));
	if (r < 0)
		return r;
	return op_finish(ret_op, onednn,
		&(struct op_plan){
			.desc = &desc,
			.attr = attr,
			.descs = { [OP_SRC] = &data, [OP_DST] = &data },
		});
}

int op_gelu_backward_new(struct op **ret_op, struct onednn *onednn, int64_t rows, int64_t n)
{
	_cleanup_(attr_freep) dnnl_primitive_attr_t attr = NULL;
	_cleanup_(pd_freep) dnnl_primitive_desc_t hint = NULL;
	dnnl_eltwise_desc_t forward, desc;
	dnnl_memory_desc_t data;
	int r;

	r = dense_desc(&data, rows, n);
	if (r == 0)
		r = user_scratchpad_attr(&attr);
	if (r == 0)
		r = dnnl_errno(dnnl_eltwise_forward_desc_init(
			&forward, dnnl_forward_training, dnnl_eltwise_gelu_erf, &data, 0, 0));
	if (r == 0)
		r = dnnl_errno(
			dnnl_primitive_desc_create(&hint, &forward, attr, onednn->engine, NULL));
	if (r == 0)
		r = dnnl_errno(dnnl_eltwise_backward_desc_init(
			&desc, dnnl_eltwise_gelu_erf, &data, &data, 0, 0));
	if (r < 0)
		return r;
	return op_finish(ret_op, onednn,
		&(struct op_plan){
			.desc = &desc,
			.attr = attr,
			.hint = hint,
			.descs = { [OP_SRC] = &data, [OP_DIFF_DST] = &data, [OP_DIFF_SRC] = &data },
		});
}

int op_add_new(struct op **ret_op, struct onednn *onednn, int64_t rows, int64_t n)
{
	_cleanup_(attr_freep) dnnl_primitive_attr_t attr = NULL;
	dnnl_binary_desc_t desc;
	dnnl_memory_desc_t data;
	int r;

	r = dense_desc(&data, rows, n);
	if (r == 0)
		r = user_scratchpad_attr(&attr);
	if (r == 0)
		r = dnnl_errno(dnnl_binary_desc_init(&desc, dnnl_binary_add, &data, &data, &data));
	if (r < 0)
		return r;
	return op_finish(ret_op, onednn,
		&(struct op_plan){
			.desc = &desc,
			.attr = attr,
			.descs = { [OP_SRC] = &data, [OP_WEIGHTS] = &data, [OP_DST] = &data },
		});
}
