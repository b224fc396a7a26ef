/* SPDX-License-Identifier: Apache-2.0 */
#include "floor.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "onednn/op.h"

enum { QKV, PROJ, FC1, FC2, N_LAYERS };

/* A block's ops; the weights of the four layers are bound per block. */
struct products {
	struct op *layers[N_LAYERS], *scores, *mix;
};

struct floor {
	struct onednn *onednn;
	struct arena *arena;
	struct vit_shape shape;
	uint32_t batch, n_tokens;
	enum floor_layout layout;
	enum precision precision;
	struct packed *patch_weight, **weights; /* (depth, N_LAYERS) */
	struct op *patch;
	struct products all, last;
	void *wide, *narrow,
		*probs; /* in the precision: (rows, max(mlp, 3 width, patch)), (rows, width) */
};

static void products_free(struct products *products)
{
	for (unsigned i = 0; i < N_LAYERS; i++)
		op_free(products->layers[i]);
	op_free(products->scores);
	op_free(products->mix);
}

void floor_free(struct floor *floor)
{
	if (!floor)
		return;
	op_free(floor->patch);
	products_free(&floor->all);
	products_free(&floor->last);
	packed_free(floor->patch_weight);
	for (unsigned i = 0; floor->weights && i < floor->shape.depth * N_LAYERS; i++)
		packed_free(floor->weights[i]);
	free(floor->weights);
	arena_free(floor->arena);
	onednn_free(floor->onednn);
	free(floor);
}

static void layer_shape(
	const struct vit_shape *shape, unsigned layer, int64_t *ret_k, int64_t *ret_n)
{
	*ret_k = layer == FC2 ? shape->mlp : shape->width;
	*ret_n = layer == QKV   ? 3 * (int64_t)shape->width
		 : layer == FC1 ? shape->mlp
				: shape->width;
}

static int linear_new(struct floor *floor, struct op **ret_op, const struct packed *packed,
	int64_t rows, int64_t k, int64_t n)
{
	return op_matmul_new(ret_op, floor->onednn,
		&(struct op_matmul){
			.src = view_in(view_2d(rows, k), floor->precision),
			.packed = packed,
			.dst = view_in(view_2d(rows, n), floor->precision),
		});
}

/* (batch, heads, rows, cols): dense, or rows of qkv's result. */
static struct view view_heads(const struct floor *floor, int64_t rows, int64_t cols, bool strided)
{
	const int64_t heads = floor->shape.n_heads, row = 3 * (int64_t)floor->shape.width;
	struct view view = { .n_dims = 4,
		.dims = { floor->batch, heads, rows, cols },
		.precision = floor->precision };

	view.strides[3] = 1;
	view.strides[2] = strided ? row : cols;
	view.strides[1] = strided ? cols : rows * cols;
	view.strides[0] = strided ? floor->n_tokens * row : heads * rows * cols;
	return view;
}

static struct view view_transposed(struct view view)
{
	struct view t = view;

	t.dims[2] = view.dims[3];
	t.dims[3] = view.dims[2];
	t.strides[2] = view.strides[3];
	t.strides[3] = view.strides[2];
	return t;
}

static int attention_new(struct floor *floor, struct products *products, int64_t n_queries)
{
	const int64_t head = floor->shape.width / floor->shape.n_heads, t = floor->n_tokens;
	const bool strided = floor->layout == FLOOR_STRIDED;
	const struct view probs = view_heads(floor, n_queries, t, false);
	int r;

	r = op_matmul_new(&products->scores, floor->onednn,
		&(struct op_matmul){
			.src = view_heads(floor, n_queries, head, strided),
			.weights = strided ? view_transposed(view_heads(floor, t, head, true))
					   : view_heads(floor, head, t, false),
			.dst = probs,
		});
	if (r < 0)
		return r;
	return op_matmul_new(&products->mix, floor->onednn,
		&(struct op_matmul){
			.src = probs,
			.weights = view_heads(floor, t, head, strided),
			.dst = view_heads(floor, n_queries, head, false),
		});
}

static int products_new(struct floor *floor, struct products *products, int64_t n_queries)
{
	int r = attention_new(floor, products, n_queries);

	for (unsigned i = 0; i < N_LAYERS && r == 0; i++) {
		int64_t k, n;

		layer_shape(&floor->shape, i, &k, &n);
		r = linear_new(floor, &products->layers[i], floor->weights[i],
			floor->batch * (i == QKV ? floor->n_tokens : n_queries), k, n);
	}
	return r;
}

static int weight_new(struct floor *floor, struct packed **ret_packed, int64_t k, int64_t n)
{
	_cleanup_(freep) float *values = malloc((size_t)(k * n) * sizeof(float));
	int r;

	if (!values)
		return -ENOMEM;
	for (int64_t i = 0; i < k * n; i++)
		values[i] = (float)(i % 251 - 125) / 4096;
	r = packed_new(ret_packed, floor->onednn, k, n, PACKED_N_BY_K, floor->precision);
	return r < 0 ? r : packed_write(*ret_packed, values);
}

static int weights_new(struct floor *floor)
{
	const struct vit_shape *shape = &floor->shape;
	const int64_t patch = 3 * (int64_t)shape->patch * shape->patch;
	int r;

	floor->weights = calloc((size_t)shape->depth * N_LAYERS, sizeof(struct packed *));
	if (!floor->weights)
		return -ENOMEM;
	r = weight_new(floor, &floor->patch_weight, patch, shape->width);
	for (unsigned i = 0; i < shape->depth * N_LAYERS && r == 0; i++) {
		int64_t k, n;

		layer_shape(shape, i % N_LAYERS, &k, &n);
		r = weight_new(floor, &floor->weights[i], k, n);
	}
	if (r == 0)
		r = linear_new(floor, &floor->patch, floor->patch_weight,
			(int64_t)floor->batch * (floor->n_tokens - 1), patch, shape->width);
	return r;
}

/* Not zero: a product of zeros may be cheaper. */
static void *take(struct floor *floor, size_t n)
{
	void *values = arena_take(floor->arena, n * precision_bytes(floor->precision));

	for (size_t i = 0; i < n; i++) {
		float value = (float)(i % 127) / 1024;
		uint32_t bits;

		memcpy(&bits, &value, sizeof(bits));
		if (floor->precision == PRECISION_BF16)
			((uint16_t *)values)[i] = (uint16_t)(bits >> 16);
		else
			((float *)values)[i] = value;
	}
	return values;
}

static int buffers_new(struct floor *floor)
{
	const struct vit_shape *shape = &floor->shape;
	const size_t rows = (size_t)floor->batch * floor->n_tokens;
	const size_t size = precision_bytes(floor->precision);
	size_t widest = 3 * (size_t)shape->patch * shape->patch, n_probs;
	int r;

	widest = widest > shape->mlp ? widest : shape->mlp;
	widest = widest > 3 * (size_t)shape->width ? widest : 3 * (size_t)shape->width;
	n_probs = rows * shape->n_heads * floor->n_tokens;
	r = arena_new(&floor->arena, arena_round(rows * widest * size) +
					     arena_round(rows * shape->width * size) +
					     arena_round(n_probs * size));
	if (r < 0)
		return r;
	floor->wide = take(floor, rows * widest);
	floor->narrow = take(floor, rows * shape->width);
	floor->probs = take(floor, n_probs);
	return 0;
}

int floor_new(struct floor **ret_floor, const struct vit_shape *shape, uint32_t batch, uint32_t px,
	enum floor_layout layout, enum precision precision)
{
	_cleanup_(floor_freep) struct floor *floor = calloc(1, sizeof(*floor));
	const uint32_t grid = px / shape->patch;
	int r;

	if (!floor)
		return -ENOMEM;
	floor->shape = *shape;
	floor->batch = batch;
	floor->n_tokens = 1 + grid * grid;
	floor->layout = layout;
	floor->precision = precision;
	r = onednn_new(&floor->onednn);
	if (r == 0)
		r = buffers_new(floor);
	if (r == 0)
		r = weights_new(floor);
	if (r == 0)
		r = products_new(floor, &floor->all, floor->n_tokens);
	if (r == 0)
		r = products_new(floor, &floor->last, 1);
	if (r < 0)
		return r;
	*ret_floor = TAKE_PTR(floor);
	return 0;
}

static int run_layer(struct op *op, const void *src, const struct packed *weights, void *dst)
{
	op_bind(op, OP_SRC, src);
	op_use(op, weights);
	op_bind(op, OP_DST, dst);
	return op_run(op);
}

static int run_block(struct floor *floor, struct products *p, struct packed *const *weights)
{
	const size_t width = floor->shape.width;
	const bool strided = floor->layout == FLOOR_STRIDED;
	const size_t third = (strided ? width : floor->batch * floor->n_tokens * width) *
			     precision_bytes(floor->precision);
	const char *wide = floor->wide;
	int r = run_layer(p->layers[QKV], floor->narrow, weights[QKV], floor->wide);

	if (r == 0)
		r = op_run_on(p->scores, wide, wide + third, floor->probs);
	if (r == 0)
		r = op_run_on(p->mix, floor->probs, wide + 2 * third, floor->narrow);
	if (r == 0)
		r = run_layer(p->layers[PROJ], floor->narrow, weights[PROJ], floor->wide);
	if (r == 0)
		r = run_layer(p->layers[FC1], floor->narrow, weights[FC1], floor->wide);
	if (r == 0)
		r = run_layer(p->layers[FC2], floor->wide, weights[FC2], floor->narrow);
	return r;
}

int floor_run(struct floor *floor)
{
	int r = run_layer(floor->patch, floor->wide, floor->patch_weight, floor->narrow);

	for (uint32_t b = 0; b < floor->shape.depth && r == 0; b++)
		r = run_block(floor, b + 1 < floor->shape.depth ? &floor->all : &floor->last,
			floor->weights + (size_t)b * N_LAYERS);
	return r;
}
