/* SPDX-License-Identifier: Apache-2.0 */
#include "model/vit_internal.h"

/* Bias, scale, GELU and residual are no post-operations here: a scale a row of the source is more
 * than oneDNN's fast products know, and whoever makes the next product's u8 reads all sums anyway. */

static int product_new(
	struct op **ret_op, const struct vit *vit, int64_t rows, int64_t n_in, int64_t n_out)
{
	_cleanup_(packed_freep) struct packed *packed = NULL;
	int r;

	r = packed_new(&packed, vit->onednn, n_in, n_out, PACKED_N_BY_K, PRECISION_INT8);
	if (r < 0)
		return r;
	return op_matmul_new(ret_op, vit->onednn,
		&(struct op_matmul){
			.src = view_in(view_2d(rows, n_in), PRECISION_INT8),
			.packed = packed,
			.dst = view_2d(rows, n_out),
		});
}

int vit_block_int8_init(struct vit_block *block, const struct vit *vit, struct vit_extent extent)
{
	const int64_t all = (int64_t)extent.n * extent.n_tokens;
	const int64_t rows = (int64_t)extent.n * extent.n_queries;
	const int64_t width = vit->shape.width, mlp = vit->shape.mlp;
	int r;

	block->extent = extent;
	r = product_new(&block->qkv, vit, all, width, 3 * width);
	if (r == 0)
		r = product_new(&block->proj, vit, rows, width, width);
	if (r == 0)
		r = product_new(&block->fc1, vit, rows, width, mlp);
	if (r == 0)
		r = product_new(&block->fc2, vit, rows, mlp, width);
	return r < 0 ? r : vit_attention_init(&block->attention, vit, extent);
}

static struct int8_layer layer_of(
	const struct vit *vit, const struct slot *slot, uint32_t b, enum vit_layer layer)
{
	const uint32_t width = vit->shape.width;
	const struct slot_entry *entry = slot_entry(slot, vit_layer_index(b, layer));

	return (struct int8_layer){
		.sums = entry->sums,
		.steps = entry->steps,
		.bias = entry->bias,
		.scale = entry->scale,
		.n = layer == VIT_QKV   ? 3 * width
		     : layer == VIT_FC1 ? vit->shape.mlp
					: width,
	};
}

static int multiply(struct op *op, const struct slot *slot, uint32_t b, enum vit_layer layer,
	const uint8_t *src, int32_t *dst)
{
	op_bind(op, OP_SRC, src);
	op_use(op, slot_entry(slot, vit_layer_index(b, layer))->forward);
	op_bind(op, OP_DST, dst);
	return op_run(op);
}

static struct row_norm norm_of(const struct vit *vit, const struct vit_norm *norm)
{
	return (struct row_norm){
		.weight = norm->weight,
		.bias = norm->bias,
		.eps = vit->shape.norm_eps,
		.n = vit->shape.width,
	};
}

/* Ends the block before: what its fc2 gave is not in data->x yet. */
static void begin(const struct vit *vit, const struct vit_extent *e, const struct slot *slot,
	uint32_t b, const struct vit_block_data *data, const struct vit_int8 *int8)
{
	const struct row_norm norm = norm_of(vit, &vit->norm1[b]);
	const struct int8_layer before = layer_of(vit, slot, b ? b - 1 : 0, VIT_FC2);

	row_int8_norm(&(struct row_int8_norm){
		.x = data->x,
		.residual = data->x,
		.every = 1,
		.acc = b ? int8->acc : NULL,
		.layer = &before,
		.norm = &norm,
		.dst = int8->narrow,
		.steps = int8->steps,
		.rows = (size_t)e->n * e->n_tokens,
		.width = vit->shape.width,
	});
}

/* data->att to data->mid, and its norm to int8->narrow */
static int project(struct vit_block *block, const struct vit *vit, const struct slot *slot,
	uint32_t b, const struct vit_block_data *data, const struct vit_int8 *int8)
{
	const struct vit_extent *e = &block->extent;
	const size_t rows = (size_t)e->n * e->n_queries;
	const struct row_norm norm = norm_of(vit, &vit->norm2[b]);
	const struct int8_layer proj = layer_of(vit, slot, b, VIT_PROJ);
	int r;

	row_int8_narrow(int8->narrow, data->att, e->precision, int8->steps, rows, vit->shape.width);
	r = multiply(block->proj, slot, b, VIT_PROJ, int8->narrow, int8->acc);
	if (r < 0)
		return r;
	row_int8_norm(&(struct row_int8_norm){
		.x = data->mid,
		.residual = data->x,
		.every = e->n_tokens / e->n_queries,
		.acc = int8->acc,
		.layer = &proj,
		.norm = &norm,
		.dst = int8->narrow,
		.steps = int8->steps,
		.rows = rows,
		.width = vit->shape.width,
	});
	return 0;
}

int vit_block_int8_forward(struct vit_block *block, const struct vit *vit, const struct slot *slot,
	uint32_t b, const struct vit_block_data *data, const struct vit_int8 *int8)
{
	const struct vit_extent *e = &block->extent;
	const struct int8_layer qkv = layer_of(vit, slot, b, VIT_QKV);
	const struct int8_layer fc1 = layer_of(vit, slot, b, VIT_FC1);
	int r;

	begin(vit, e, slot, b, data, int8);
	r = multiply(block->qkv, slot, b, VIT_QKV, int8->narrow, int8->acc);
	if (r < 0)
		return r;
	row_int8_widen(
		data->qkv, e->precision, int8->acc, &qkv, int8->steps, (size_t)e->n * e->n_tokens);
	r = vit_attention_forward(&block->attention, vit, *e, data);
	if (r == 0)
		r = project(block, vit, slot, b, data, int8);
	if (r == 0)
		r = multiply(block->fc1, slot, b, VIT_FC1, int8->narrow, int8->acc);
	if (r < 0)
		return r;
	row_int8_gelu(int8->hidden, int8->acc, &fc1, int8->steps, (size_t)e->n * e->n_queries);
	return multiply(block->fc2, slot, b, VIT_FC2, int8->hidden, int8->acc);
}

void vit_block_int8_end(const struct vit_block *block, const struct vit *vit,
	const struct slot *slot, const struct vit_block_data *data, const struct vit_int8 *int8)
{
	const struct int8_layer fc2 = layer_of(vit, slot, vit->shape.depth - 1, VIT_FC2);

	row_int8_norm(&(struct row_int8_norm){
		.x = data->out,
		.residual = data->mid,
		.every = 1,
		.acc = int8->acc,
		.layer = &fc2,
		.steps = int8->steps,
		.rows = (size_t)block->extent.n * block->extent.n_queries,
		.width = vit->shape.width,
	});
}
