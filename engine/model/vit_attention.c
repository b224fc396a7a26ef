/* SPDX-License-Identifier: Apache-2.0 */
#include "model/vit_internal.h"

struct view vit_view_qkv(const struct vit_shape *shape, struct vit_extent extent, uint32_t rows)
{
	const int64_t row = (int64_t)3 * shape->width, head = shape->width / shape->n_heads;

	return (struct view){
		.n_dims = 4,
		.dims = { extent.n, shape->n_heads, rows, head },
		.strides = { extent.n_tokens * row, head, row, 1 },
	};
}

struct view vit_view_heads(const struct vit_shape *shape, struct vit_extent extent)
{
	const int64_t row = shape->width, head = shape->width / shape->n_heads;

	return (struct view){
		.n_dims = 4,
		.dims = { extent.n, shape->n_heads, extent.n_queries, head },
		.strides = { extent.n_queries * row, head, row, 1 },
	};
}

struct view vit_view_probs(const struct vit_shape *shape, struct vit_extent extent)
{
	const int64_t one = (int64_t)extent.n_queries * extent.n_tokens;

	return (struct view){
		.n_dims = 4,
		.dims = { extent.n, shape->n_heads, extent.n_queries, extent.n_tokens },
		.strides = { shape->n_heads * one, one, extent.n_tokens, 1 },
	};
}

struct view vit_view_transposed(struct view view)
{
	const int last = view.n_dims - 1;
	int64_t dim = view.dims[last], stride = view.strides[last];

	view.dims[last] = view.dims[last - 1];
	view.strides[last] = view.strides[last - 1];
	view.dims[last - 1] = dim;
	view.strides[last - 1] = stride;
	return view;
}

struct view vit_view_dense(
	const struct vit_shape *shape, struct vit_extent extent, uint32_t rows, uint32_t cols)
{
	return (struct view){
		.n_dims = 3,
		.dims = { (int64_t)extent.n * shape->n_heads, rows, cols },
		.strides = { (int64_t)rows * cols, cols, 1 },
		.precision = extent.precision,
	};
}

static int init_strided(
	struct vit_attention *attention, const struct vit *vit, struct vit_extent extent)
{
	const struct vit_shape *shape = &vit->shape;
	const struct view probs = vit_view_probs(shape, extent);
	int r;

	r = op_matmul_new(&attention->scores, vit->onednn,
		&(struct op_matmul){
			.src = vit_view_qkv(shape, extent, extent.n_queries),
			.weights =
				vit_view_transposed(vit_view_qkv(shape, extent, extent.n_tokens)),
			.dst = probs,
			.factor = vit_attention_factor(shape),
		});
	if (r < 0)
		return r;
	r = op_softmax_new(&attention->softmax, vit->onednn,
		(int64_t)extent.n * shape->n_heads * extent.n_queries, extent.n_tokens);
	if (r < 0)
		return r;
	return op_matmul_new(&attention->mix, vit->onednn,
		&(struct op_matmul){
			.src = probs,
			.weights = vit_view_qkv(shape, extent, extent.n_tokens),
			.dst = vit_view_heads(shape, extent),
		});
}

/* Of logits, which are written and read again at once: about half a core's second cache. */
#define NEAR_BYTES ((size_t)5 << 18)

/* A divisor of n: every product is of as many heads. */
static uint32_t images_at_once(const struct vit_shape *shape, struct vit_extent extent)
{
	const size_t one =
		(size_t)shape->n_heads * extent.n_queries * extent.n_keys * sizeof(float);
	uint32_t n = NEAR_BYTES / one < extent.n ? (uint32_t)(NEAR_BYTES / one) : extent.n;

	while (n > 1 && extent.n % n)
		n--;
	return n ? n : 1;
}

static int init_dense(
	struct vit_attention *attention, const struct vit *vit, struct vit_extent extent)
{
	const struct vit_shape *shape = &vit->shape;
	const uint32_t head = shape->width / shape->n_heads;
	const uint32_t q = extent.n_queries, t = extent.n_keys;
	struct view probs;
	int r;

	attention->at_once = images_at_once(shape, extent);
	extent.n = attention->at_once;
	probs = vit_view_dense(shape, extent, q, t);
	r = op_matmul_new(&attention->scores, vit->onednn,
		&(struct op_matmul){
			.src = vit_view_dense(shape, extent, q, head),
			.weights = vit_view_transposed(vit_view_dense(shape, extent, t, head)),
			.dst = view_in(probs, PRECISION_F32),
			.factor = vit_attention_factor(shape),
		});
	if (r < 0)
		return r;
	return op_matmul_new(&attention->mix, vit->onednn,
		&(struct op_matmul){
			.src = probs,
			.weights = vit_view_dense(shape, extent, t, head),
			.dst = vit_view_dense(shape, extent, q, head),
		});
}

int vit_attention_init(
	struct vit_attention *attention, const struct vit *vit, struct vit_extent extent)
{
	return extent.precision == PRECISION_F32 ? init_strided(attention, vit, extent)
						 : init_dense(attention, vit, extent);
}

void vit_attention_done(struct vit_attention *attention)
{
	op_free(attention->scores);
	op_free(attention->softmax);
	op_free(attention->mix);
}

static int forward_strided(
	struct vit_attention *attention, const struct vit *vit, const struct vit_block_data *data)
{
	const uint32_t width = vit->shape.width;
	const float *qkv = data->qkv;
	int r;

	r = op_run_on(attention->scores, qkv, qkv + width, data->probs);
	if (r < 0)
		return r;
	op_bind(attention->softmax, OP_SRC, data->probs);
	op_bind(attention->softmax, OP_DST, data->probs);
	r = op_run(attention->softmax);
	if (r < 0)
		return r;
	return op_run_on(attention->mix, data->probs, qkv + (size_t)2 * width, data->att);
}

static int forward_dense(struct vit_attention *attention, const struct vit *vit,
	struct vit_extent extent, const struct vit_block_data *data)
{
	const struct vit_shape *shape = &vit->shape;
	const struct vit_heads *heads = &data->heads;
	const size_t rows = (size_t)attention->at_once * shape->n_heads * extent.n_queries;
	const size_t n_q = (size_t)extent.n_queries * shape->width;
	const size_t n_k = (size_t)extent.n_keys * shape->width;
	const size_t n_probs = (size_t)shape->n_heads * extent.n_queries * extent.n_keys;
	int r = 0;

	vit_heads_split(shape, extent, data->qkv, heads);
	for (size_t i = 0; r == 0 && i < extent.n; i += attention->at_once) {
		bf16 *probs = (bf16 *)data->probs + i * n_probs;

		r = op_run_on(
			attention->scores, heads->q + i * n_q, heads->k + i * n_k, data->logits);
		if (r < 0)
			return r;
		row_softmax(probs, data->logits, rows, extent.n_tokens, extent.n_keys);
		r = op_run_on(attention->mix, probs, heads->v + i * n_k, heads->out + i * n_q);
	}
	if (r < 0)
		return r;
	vit_heads_give(shape, extent, heads, data->att);
	return 0;
}

int vit_attention_forward(struct vit_attention *attention, const struct vit *vit,
	struct vit_extent extent, const struct vit_block_data *data)
{
	return extent.precision == PRECISION_F32 ? forward_strided(attention, vit, data)
						 : forward_dense(attention, vit, extent, data);
}
