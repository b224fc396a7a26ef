/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_ONEDNN_DNNL_GLUE_H
#define KAMEN_ONEDNN_DNNL_GLUE_H

#include <dnnl.h>
#include <stddef.h>

#include "onednn/op.h"

/* oneDNN's own types: for the files of this room and for nobody else. */

struct onednn {
	dnnl_engine_t engine;
	dnnl_stream_t stream;
	void *scratch; /* grown by op_finish(), read anew by every op_run() */
	size_t scratch_bytes;
	unsigned n_slow;
};

struct packed {
	struct onednn *onednn;
	dnnl_memory_desc_t desc; /* (k, n) */
	/* The same memory as its products and reorders see it: (n, k, 1, 1) where they are convolutions. */
	dnnl_memory_desc_t weights;
	bool convolves;
	dnnl_memory_t memory, plain;
	dnnl_primitive_t reorder;
	void *data, *own; /* own: NULL where data is borrowed */
	int64_t k, n;
	enum packed_source source;
	enum precision precision;
};

struct op {
	struct onednn *onednn;
	dnnl_primitive_desc_t pd;
	dnnl_primitive_t primitive;
	dnnl_memory_t memories[OP_N_ARGS];
	dnnl_memory_t scratch;
	dnnl_exec_arg_t args[OP_N_ARGS + 1];
	int n_args;
	int place[OP_N_ARGS]; /* of the argument in args, or -1 */
	int error;            /* of an op_bind() */
	struct op *tail;      /* adds product to OP_DST, where the primitive itself cannot */
	float *product;
};

/** Of n columns, whole blocks, as a product sees them. */
dnnl_memory_desc_t packed_columns_desc(const struct packed *packed, int64_t n);
/** (rows, n) as a convolution's image (1, n, rows, 1), channels last. -EIO */
int pixels_desc(dnnl_memory_desc_t *ret_desc, int64_t rows, int64_t n);

/* 0, -ENOMEM or -EIO */
int dnnl_errno(dnnl_status_t status);
/* Of weights, and of all that is not int8. */
static inline dnnl_data_type_t precision_type(enum precision precision)
{
	return precision == PRECISION_INT8   ? dnnl_s8
	       : precision == PRECISION_BF16 ? dnnl_bf16
					     : dnnl_f32;
}
int view_desc(dnnl_memory_desc_t *ret_desc, const struct view *view);
/* What a product reads on its left, and what it gives: u8 and s32 in int8. */
int view_desc_src(dnnl_memory_desc_t *ret_desc, const struct view *src);
int view_desc_dst(dnnl_memory_desc_t *ret_desc, const struct view *dst, enum precision precision);

/* What a constructor knows of an op: then op_finish() makes the primitive. */
struct op_plan {
	const_dnnl_op_desc_t desc;
	dnnl_primitive_attr_t attr; /* owned by the caller, user scratchpad set; may be NULL */
	dnnl_primitive_desc_t hint;
	const dnnl_memory_desc_t *descs[OP_N_ARGS]; /* NULL: no such argument */
};
int op_finish(struct op **ret_op, struct onednn *onednn, const struct op_plan *plan);
int user_scratchpad_attr(dnnl_primitive_attr_t *ret_attr);

static inline void attr_freep(dnnl_primitive_attr_t *attr)
{
	if (*attr)
		(void)dnnl_primitive_attr_destroy(*attr);
}

static inline void pd_freep(dnnl_primitive_desc_t *pd)
{
	if (*pd)
		(void)dnnl_primitive_desc_destroy(*pd);
}

static inline void post_ops_freep(dnnl_post_ops_t *ops)
{
	if (*ops)
		(void)dnnl_post_ops_destroy(*ops);
}

#endif
