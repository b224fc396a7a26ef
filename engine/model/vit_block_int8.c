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

/* Of sums, which are written and read again at once: about half a core's second cache. */
#define NEAR_BYTES ((size_t)5 << 18)

/* A divisor of n: every product is of as many images. */
static uint32_t images_at_once(uint32_t n, size_t rows, size_t n_out)
{
	const size_t most = NEAR_BYTES / (rows * n_out * sizeof(int32_t));
	uint32_t at_once = most < n ? (uint32_t)most : n;

	while (at_once > 1 && n % at_once)
		at_once--;
	return at_once ? at_once : 1;
}

struct vit_int8_parts vit_int8_parts(const struct vit_shape *shape, struct vit_extent extent)
{
	const uint32_t widest = shape->mlp > shape->width ? shape->mlp : shape->width;

	return (struct vit_int8_parts){
		.qkv = images_at_once(extent.n, extent.n_tokens, 3 * (size_t)shape->width),
		.rest = images_at_once(extent.n, extent.n_queries, widest),
	};
}

int vit_block_int8_init(struct vit_block *block, const struct vit *vit, struct vit_extent extent)
{
	const struct vit_int8_parts parts = vit_int8_parts(&vit->shape, extent);
	const int64_t all = (int64_t)parts.qkv * extent.n_tokens;
	const int64_t rows = (int64_t)parts.rest * extent.n_queries;
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
		.steps = entry->steps,
		.offsets = entry->offsets,
		.shifts = entry->shifts,
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

void vit_block_int8_begin(const struct vit *vit, uint32_t b, size_t rows,
	const struct vit_block_data *data, const struct vit_int8 *int8)
{
	const struct row_norm norm = norm_of(vit, &vit->norm1[b]);

	row_int8_norm(&(struct row_int8_norm){
		.x = data->x,
		.norm = &norm,
		.dst = int8->narrow,
		.steps = int8->steps,
		.rows = rows,
		.width = vit->shape.width,
	});
}

/* Images from `first` on, as many as qkv takes at once: int8->narrow to data->qkv */
static int look(struct vit_block *block, const struct vit *vit, const struct slot *slot, uint32_t b,
	uint32_t first, const struct vit_block_data *data, const struct vit_int8 *int8)
{
	const struct vit_extent *e = &block->extent;
	const size_t n = vit_int8_parts(&vit->shape, *e).qkv, width = vit->shape.width;
	const size_t at = (size_t)first * e->n_tokens;
	const struct int8_layer qkv = layer_of(vit, slot, b, VIT_QKV);
	int r = multiply(block->qkv, slot, b, VIT_QKV, int8->narrow + at * width, int8->acc);

	if (r == 0)
		row_int8_widen((char *)data->qkv + at * 3 * width * precision_bytes(e->precision),
			e->precision, int8->acc, &qkv, int8->steps + at, n * e->n_tokens);
	return r;
}

/* The residual of a part, and the norm of what it then is: NULL behind the last block. */
static void settle(const struct vit *vit, struct row_int8_norm job, const struct slot *slot,
	uint32_t b, enum vit_layer layer, const struct vit_norm *norm)
{
	const struct int8_layer l = layer_of(vit, slot, b, layer);
	const struct row_norm row = norm ? norm_of(vit, norm) : (struct row_norm){ 0 };

	job.layer = &l;
	job.norm = norm ? &row : NULL;
	row_int8_norm(&job);
}

/* Images from `first` on, as many as the rest takes at once: data->att to data->out, and to
 * int8->narrow what the next block begins with. */
static int think(struct vit_block *block, const struct vit *vit, const struct slot *slot,
	uint32_t b, uint32_t first, const struct vit_block_data *data, const struct vit_int8 *int8)
{
	const struct vit_extent *e = &block->extent;
	const size_t rows = (size_t)vit_int8_parts(&vit->shape, *e).rest * e->n_queries;
	const size_t at = (size_t)first * e->n_queries, width = vit->shape.width;
	const struct int8_layer fc1 = layer_of(vit, slot, b, VIT_FC1);
	uint8_t *narrow = int8->narrow + at * width;
	struct row_steps *steps = int8->steps + at;
	struct row_int8_norm job = {
		.x = data->mid + at * width,
		.residual = data->x + (size_t)first * e->n_tokens * width,
		.every = e->n_tokens / e->n_queries,
		.acc = int8->acc,
		.dst = narrow,
		.steps = steps,
		.rows = rows,
		.width = width,
	};
	int r;

	row_int8_narrow(narrow,
		(const char *)data->att + at * width * precision_bytes(e->precision), e->precision,
		steps, rows, width);
	r = multiply(block->proj, slot, b, VIT_PROJ, narrow, int8->acc);
	if (r < 0)
		return r;
	settle(vit, job, slot, b, VIT_PROJ, &vit->norm2[b]);
	r = multiply(block->fc1, slot, b, VIT_FC1, narrow, int8->acc);
	if (r < 0)
		return r;
	row_int8_gelu(int8->hidden, int8->acc, &fc1, steps, rows);
	r = multiply(block->fc2, slot, b, VIT_FC2, int8->hidden, int8->acc);
	if (r < 0)
		return r;
	job.x = data->out + at * width;
	job.residual = data->mid + at * width;
	job.every = 1;
	settle(vit, job, slot, b, VIT_FC2, b + 1 < vit->shape.depth ? &vit->norm1[b + 1] : NULL);
	return 0;
}

int vit_block_int8_look(struct vit_block *block, const struct vit *vit, const struct slot *slot,
	uint32_t b, const struct vit_block_data *data, const struct vit_int8 *int8)
{
	const uint32_t at_once = vit_int8_parts(&vit->shape, block->extent).qkv;
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < block->extent.n; i += at_once)
		r = look(block, vit, slot, b, i, data, int8);
	return r;
}

int vit_block_int8_think(struct vit_block *block, const struct vit *vit, const struct slot *slot,
	uint32_t b, const struct vit_block_data *data, const struct vit_int8 *int8)
{
	const struct vit_extent *e = &block->extent;
	const uint32_t at_once = vit_int8_parts(&vit->shape, *e).rest;
	int r = vit_attention_forward(&block->attention, vit, *e, data);

	for (uint32_t i = 0; r == 0 && i < e->n; i += at_once)
		r = think(block, vit, slot, b, i, data, int8);
	return r;
}
