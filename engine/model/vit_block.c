/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "model/vit_internal.h"

/* A maskable layer over dense rows; any packed weight of its shape gives the layout. */
static int layer_new(struct op **ret_op, const struct vit *vit, struct view src, struct view dst,
	enum op_then then)
{
	_cleanup_(packed_freep) struct packed *packed = NULL;
	int r;

	r = packed_new(
		&packed, vit->onednn, src.dims[1], dst.dims[1], PACKED_N_BY_K, src.precision);
	if (r < 0)
		return r;
	return op_matmul_new(ret_op, vit->onednn,
		&(struct op_matmul){
			.src = src,
			.packed = packed,
			.dst = dst,
			.bias = true,
			.scale = true,
			.then = then,
		});
}

static int layers_init(struct vit_block *block, const struct vit *vit, bool keep)
{
	const struct vit_extent *e = &block->extent;
	const int64_t width = vit->shape.width, mlp = vit->shape.mlp;
	const int64_t all = (int64_t)e->n * e->n_tokens, rows = (int64_t)e->n * e->n_queries;
	const struct view read = view_in(view_2d(rows, width), e->precision);
	const struct view hidden = view_in(view_2d(rows, mlp), e->precision);
	int r;

	r = layer_new(&block->qkv, vit, view_in(view_2d(all, width), e->precision),
		view_in(view_2d(all, 3 * width), e->precision), OP_THEN_NOTHING);
	if (r == 0)
		r = layer_new(&block->proj, vit, read, view_2d(rows, width), OP_THEN_ADD);
	if (r == 0)
		r = layer_new(&block->fc1, vit, read, hidden,
			keep || e->precision != PRECISION_F32 ? OP_THEN_NOTHING : OP_THEN_GELU);
	return r < 0 ? r : layer_new(&block->fc2, vit, hidden, view_2d(rows, width), OP_THEN_ADD);
}

static int norms_init(struct vit_block *block, const struct vit *vit, bool keep)
{
	const struct vit_extent *e = &block->extent;
	const int64_t width = vit->shape.width;
	const float eps = vit->shape.norm_eps;
	int r;

	r = op_norm_new(&block->norm1, vit->onednn, (int64_t)e->n * e->n_tokens, width, eps, keep);
	return r < 0 ? r
		     : op_norm_new(&block->norm2, vit->onednn, (int64_t)e->n * e->n_queries, width,
			       eps, keep);
}

int vit_block_init(
	struct vit_block *block, const struct vit *vit, struct vit_extent extent, bool keep)
{
	const int64_t rows = (int64_t)extent.n * extent.n_queries;
	int r;

	block->extent = extent;
	r = layers_init(block, vit, keep);
	if (r == 0)
		r = vit_attention_init(&block->attention, vit, extent);
	if (r < 0 || extent.precision != PRECISION_F32)
		return r;
	r = norms_init(block, vit, keep);
	return r < 0 || !keep ? r : op_gelu_new(&block->gelu, vit->onednn, rows, vit->shape.mlp);
}

void vit_block_done(struct vit_block *block)
{
	op_free(block->norm1);
	op_free(block->qkv);
	vit_attention_done(&block->attention);
	op_free(block->proj);
	op_free(block->norm2);
	op_free(block->fc1);
	op_free(block->gelu);
	op_free(block->fc2);
}

static int run_layer(struct op *op, const struct slot_entry *entry, const void *src, void *dst)
{
	op_bind(op, OP_SRC, src);
	op_use(op, entry->forward);
	op_bind(op, OP_BIAS, entry->bias);
	op_bind(op, OP_SCALE, &entry->scale);
	op_bind(op, OP_DST, dst);
	return op_run(op);
}

int vit_run_norm(struct op *op, const struct vit_norm *norm, const float *src, float *mean,
	float *variance, float *dst)
{
	op_bind(op, OP_SRC, src);
	op_bind(op, OP_SCALE, norm->weight);
	op_bind(op, OP_SHIFT, norm->bias);
	if (mean) {
		op_bind(op, OP_MEAN, mean);
		op_bind(op, OP_VARIANCE, variance);
	}
	op_bind(op, OP_DST, dst);
	return op_run(op);
}

/* The product adds to its destination: put the residual there, or nothing where src is NULL. */
static void seed(const struct vit_block *block, uint32_t width, const float *src, float *dst)
{
	const struct vit_extent *e = &block->extent;

	if (src == dst)
		return;
	if (!src) {
		memset(dst, 0, (size_t)e->n * e->n_queries * width * sizeof(float));
		return;
	}
	if (e->n_queries == e->n_tokens) {
		memcpy(dst, src, (size_t)e->n * e->n_tokens * width * sizeof(float));
		return;
	}
	for (uint32_t i = 0; i < e->n; i++)
		memcpy(dst + (size_t)i * width, src + (size_t)i * e->n_tokens * width,
			width * sizeof(float));
}

/* data->y2 to data->hidden. In f32 a plan's GELU is part of the product; oneDNN's takes longer than a
 * bf16 product. */
static int run_fc1(struct vit_block *block, const struct vit *vit, const struct slot_entry *layer,
	const struct vit_block_data *data)
{
	const struct vit_extent *e = &block->extent;
	int r = run_layer(block->fc1, layer, data->y2, data->pre);

	if (r < 0)
		return r;
	if (e->precision != PRECISION_F32)
		row_gelu(data->hidden, data->pre, (size_t)e->n * e->n_queries * vit->shape.mlp);
	if (!block->gelu)
		return 0;
	op_bind(block->gelu, OP_SRC, data->pre);
	op_bind(block->gelu, OP_DST, data->hidden);
	return op_run(block->gelu);
}

/* What a norm's op, or without one a row's kernel, takes from src to dst. */
struct norm_run {
	struct op *op;
	const struct vit_norm *norm;
	const float *src;
	float *mean, *variance;
	void *dst;
	size_t rows;
};

static int run_norm(const struct vit_shape *shape, const struct norm_run *run)
{
	if (run->op)
		return vit_run_norm(
			run->op, run->norm, run->src, run->mean, run->variance, run->dst);
	row_normalise(run->dst, run->src,
		&(struct row_norm){
			.weight = run->norm->weight,
			.bias = run->norm->bias,
			.eps = shape->norm_eps,
			.n = shape->width,
		},
		run->rows, run->mean, run->variance);
	return 0;
}

int vit_block_look(struct vit_block *block, const struct vit *vit, const struct slot *slot,
	uint32_t b, const struct vit_block_data *data)
{
	int r;

	r = run_norm(&vit->shape, &(struct norm_run){
					  .op = block->norm1,
					  .norm = &vit->norm1[b],
					  .src = data->x,
					  .mean = data->mean1,
					  .variance = data->var1,
					  .dst = data->y1,
					  .rows = (size_t)block->extent.n * block->extent.n_tokens,
				  });
	if (r < 0)
		return r;
	return run_layer(
		block->qkv, slot_entry(slot, vit_layer_index(b, VIT_QKV)), data->y1, data->qkv);
}

/* data->att to data->mid */
static int run_proj(struct vit_block *block, const struct vit *vit, const struct slot_entry *layer,
	unsigned index, const struct vit_block_data *data)
{
	int r;

	seed(block, vit->shape.width, data->drop ? NULL : data->x, data->mid);
	r = run_layer(block->proj, layer, data->att, data->mid);
	if (r == 0 && data->drop)
		vit_drop_add(data->drop, &vit->shape, block->extent, index, data->x,
			block->extent.n_tokens, data->mid);
	return r;
}

/* data->hidden to data->out */
static int run_fc2(struct vit_block *block, const struct vit *vit, const struct slot_entry *layer,
	unsigned index, const struct vit_block_data *data)
{
	const struct vit_extent *e = &block->extent;
	const size_t n = (size_t)e->n * e->n_queries * vit->shape.width;
	int r;

	if (data->drop)
		memset(data->out, 0, n * sizeof(float));
	else if (data->out != data->mid)
		memcpy(data->out, data->mid, n * sizeof(float));
	r = run_layer(block->fc2, layer, data->hidden, data->out);
	if (r == 0 && data->drop)
		vit_drop_add(
			data->drop, &vit->shape, *e, index, data->mid, e->n_queries, data->out);
	return r;
}

int vit_block_think(struct vit_block *block, const struct vit *vit, const struct slot *slot,
	uint32_t b, const struct vit_block_data *data)
{
	const unsigned first = vit_layer_index(b, VIT_QKV);
	const struct slot_entry *layers = slot_entry(slot, first);
	int r = vit_attention_forward(&block->attention, vit, block->extent, data);

	if (r == 0)
		r = run_proj(block, vit, &layers[VIT_PROJ], first + VIT_PROJ, data);
	if (r == 0)
		r = run_norm(&vit->shape,
			&(struct norm_run){
				.op = block->norm2,
				.norm = &vit->norm2[b],
				.src = data->mid,
				.mean = data->mean2,
				.variance = data->var2,
				.dst = data->y2,
				.rows = (size_t)block->extent.n * block->extent.n_queries,
			});
	if (r == 0)
		r = run_fc1(block, vit, &layers[VIT_FC1], data);
	return r < 0 ? r : run_fc2(block, vit, &layers[VIT_FC2], first + VIT_FC2, data);
}

int vit_block_forward(struct vit_block *block, const struct vit *vit, const struct slot *slot,
	uint32_t b, const struct vit_block_data *data)
{
	int r = vit_block_look(block, vit, slot, b, data);

	return r < 0 ? r : vit_block_think(block, vit, slot, b, data);
}
