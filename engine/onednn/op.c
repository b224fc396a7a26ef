/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "onednn/dnnl_glue.h"

static const int dnnl_args[OP_N_ARGS] = {
	[OP_SRC] = DNNL_ARG_SRC,
	[OP_WEIGHTS] = DNNL_ARG_WEIGHTS,
	[OP_BIAS] = DNNL_ARG_BIAS,
	[OP_SCALE] = DNNL_ARG_SCALE,
	[OP_SHIFT] = DNNL_ARG_SHIFT,
	[OP_MEAN] = DNNL_ARG_MEAN,
	[OP_VARIANCE] = DNNL_ARG_VARIANCE,
	[OP_DST] = DNNL_ARG_DST,
	[OP_DIFF_SRC] = DNNL_ARG_DIFF_SRC,
	[OP_DIFF_DST] = DNNL_ARG_DIFF_DST,
};

static int view_desc_of(
	dnnl_memory_desc_t *ret_desc, const struct view *view, dnnl_data_type_t type)
{
	dnnl_dims_t dims = { 0 }, strides = { 0 };

	for (int i = 0; i < view->n_dims; i++) {
		dims[i] = view->dims[i];
		strides[i] = view->strides[i];
	}
	return dnnl_errno(
		dnnl_memory_desc_init_by_strides(ret_desc, view->n_dims, dims, type, strides));
}

int view_desc(dnnl_memory_desc_t *ret_desc, const struct view *view)
{
	return view_desc_of(ret_desc, view, precision_type(view->precision));
}

int view_desc_src(dnnl_memory_desc_t *ret_desc, const struct view *src)
{
	return view_desc_of(ret_desc, src,
		src->precision == PRECISION_INT8 ? dnnl_u8 : precision_type(src->precision));
}

int view_desc_dst(dnnl_memory_desc_t *ret_desc, const struct view *dst, enum precision precision)
{
	return view_desc_of(ret_desc, dst,
		precision == PRECISION_INT8 ? dnnl_s32 : precision_type(dst->precision));
}

int user_scratchpad_attr(dnnl_primitive_attr_t *ret_attr)
{
	_cleanup_(attr_freep) dnnl_primitive_attr_t attr = NULL;
	int r;

	r = dnnl_errno(dnnl_primitive_attr_create(&attr));
	if (r < 0)
		return r;
	r = dnnl_errno(dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user));
	if (r < 0)
		return r;
	*ret_attr = TAKE_PTR(attr);
	return 0;
}

static int grow_scratch(struct onednn *onednn, size_t n_bytes)
{
	void *scratch;

	if (n_bytes <= onednn->scratch_bytes)
		return 0;
	n_bytes = (n_bytes + 4095) & ~(size_t)4095;
	scratch = aligned_alloc(4096, n_bytes);
	if (!scratch)
		return -ENOMEM;
	free(onednn->scratch);
	onednn->scratch = scratch;
	onednn->scratch_bytes = n_bytes;
	return 0;
}

static int add_argument(struct op *op, enum op_arg arg, int id, const dnnl_memory_desc_t *desc)
{
	int r;

	r = dnnl_errno(
		dnnl_memory_create(&op->memories[arg], desc, op->onednn->engine, DNNL_MEMORY_NONE));
	if (r < 0)
		return r;
	op->place[arg] = op->n_args;
	op->args[op->n_args++] = (dnnl_exec_arg_t){ .arg = id, .memory = op->memories[arg] };
	return 0;
}

static int argument_id(dnnl_primitive_kind_t kind, enum op_arg arg)
{
	if ((kind == dnnl_matmul || kind == dnnl_convolution) && arg == OP_SCALE)
		return DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1;
	if (kind == dnnl_binary && arg == OP_WEIGHTS)
		return DNNL_ARG_SRC_1;
	return dnnl_args[arg];
}

static int add_arguments(struct op *op, const struct op_plan *plan)
{
	const dnnl_memory_desc_t *scratch;
	dnnl_primitive_kind_t kind;
	int r;

	r = dnnl_errno(dnnl_primitive_desc_query(op->pd, dnnl_query_primitive_kind, 0, &kind));
	for (int arg = 0; r == 0 && arg < OP_N_ARGS; arg++) {
		op->place[arg] = -1;
		if (!plan->descs[arg])
			continue;
		r = add_argument(op, arg, argument_id(kind, arg), plan->descs[arg]);
	}
	if (r < 0)
		return r;

	scratch = dnnl_primitive_desc_query_md(op->pd, dnnl_query_scratchpad_md, 0);
	if (!scratch || dnnl_memory_desc_get_size(scratch) == 0)
		return 0;
	r = grow_scratch(op->onednn, dnnl_memory_desc_get_size(scratch));
	if (r < 0)
		return r;
	r = dnnl_errno(
		dnnl_memory_create(&op->scratch, scratch, op->onednn->engine, op->onednn->scratch));
	if (r < 0)
		return r;
	op->args[op->n_args++] =
		(dnnl_exec_arg_t){ .arg = DNNL_ARG_SCRATCHPAD, .memory = op->scratch };
	return 0;
}

bool op_is_slow(const struct op *op)
{
	return strncmp(op_implementation(op), "ref", 3) == 0;
}

int op_finish(struct op **ret_op, struct onednn *onednn, const struct op_plan *plan)
{
	_cleanup_(op_freep) struct op *op = calloc(1, sizeof(*op));
	int r;

	if (!op)
		return -ENOMEM;
	op->onednn = onednn;
	r = dnnl_errno(dnnl_primitive_desc_create(
		&op->pd, plan->desc, plan->attr, onednn->engine, plan->hint));
	if (r < 0)
		return r;
	r = dnnl_errno(dnnl_primitive_create(&op->primitive, op->pd));
	if (r < 0)
		return r;
	r = add_arguments(op, plan);
	if (r < 0)
		return r;

	onednn->n_slow += op_is_slow(op);
	*ret_op = TAKE_PTR(op);
	return 0;
}

void op_free(struct op *op)
{
	if (!op)
		return;
	if (op->primitive)
		(void)dnnl_primitive_destroy(op->primitive);
	if (op->pd)
		(void)dnnl_primitive_desc_destroy(op->pd);
	for (int i = 0; i < OP_N_ARGS; i++)
		if (op->memories[i])
			(void)dnnl_memory_destroy(op->memories[i]);
	if (op->scratch)
		(void)dnnl_memory_destroy(op->scratch);
	op_free(op->tail);
	free(op->product);
	free(op);
}

void op_bind(struct op *op, enum op_arg arg, const void *data)
{
	int r = -EINVAL;

	if (op->tail && arg == OP_DST) {
		op_bind(op->tail, OP_SRC, data);
		op_bind(op->tail, OP_DST, data);
		return;
	}

	/* Safe for read-only data: these layouts have no padding that oneDNN would zero. */
	if (op->place[arg] >= 0)
		r = dnnl_errno(dnnl_memory_set_data_handle(op->memories[arg], (void *)data));
	if (r < 0)
		op->error = r;
}

void op_use(struct op *op, const struct packed *packed)
{
	if (op->place[OP_WEIGHTS] < 0)
		op->error = -EINVAL;
	else
		op->args[op->place[OP_WEIGHTS]].memory = packed->memory;
}

void op_use_columns(struct op *op, const struct packed *packed, uint32_t first)
{
	op_bind(op, OP_WEIGHTS,
		(const char *)packed->data +
			(size_t)first * packed->k * precision_bytes(packed->precision));
}

int op_run(struct op *op)
{
	int r = op->error;

	if (r == 0 && op->scratch)
		r = dnnl_errno(dnnl_memory_set_data_handle(op->scratch, op->onednn->scratch));
	if (r == 0)
		r = dnnl_errno(dnnl_primitive_execute(
			op->primitive, op->onednn->stream, op->n_args, op->args));
	if (r == 0)
		r = dnnl_errno(dnnl_stream_wait(op->onednn->stream));
	if (r == 0 && op->tail)
		r = op_run(op->tail);
	return r < 0 ? -EIO : 0;
}

int op_run_on(struct op *op, const void *src, const void *weights, void *dst)
{
	op_bind(op, OP_SRC, src);
	op_bind(op, OP_WEIGHTS, weights);
	op_bind(op, OP_DST, dst);
	return op_run(op);
}

const char *op_implementation(const struct op *op)
{
	const char *name = "";

	if (dnnl_primitive_desc_query(op->pd, dnnl_query_impl_info_str, 0, &name) != dnnl_success)
		return "";
	return name;
}
