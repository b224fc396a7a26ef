/* SPDX-License-Identifier: Apache-2.0 */
#include "floor_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void products_free(struct floor_products *products)
{
	for (unsigned i = 0; i < FLOOR_N_LAYERS; i++)
		op_free(products->layers[i]);
	op_free(products->scores);
	op_free(products->mix);
}

void floor_free(struct floor *floor)
{
	if (!floor)
		return;
	floor_back_done(floor);
	op_free(floor->patch);
	products_free(&floor->all);
	products_free(&floor->last);
	packed_free(floor->patch_weight);
	for (unsigned i = 0; floor->weights && i < floor->shape.depth * FLOOR_N_LAYERS; i++)
		packed_free(floor->weights[i]);
	free(floor->weights);
	arena_free(floor->arena);
	onednn_free(floor->onednn);
	free(floor);
}

void floor_layer_shape(
	const struct vit_shape *shape, enum floor_layer layer, int64_t *ret_k, int64_t *ret_n)
{
	*ret_k = layer == FLOOR_FC2 ? shape->mlp : shape->width;
	*ret_n = layer == FLOOR_QKV   ? 3 * (int64_t)shape->width
		 : layer == FLOOR_FC1 ? shape->mlp
				      : shape->width;
}

int floor_linear_new(struct floor *floor, struct op **ret_op, const struct packed *packed,
	int64_t rows, int64_t k, int64_t n, enum precision precision)
{
	return op_matmul_new(ret_op, floor->onednn,
		&(struct op_matmul){
			.src = view_in(view_2d(rows, k), precision),
			.packed = packed,
			.dst = view_in(view_2d(rows, n), precision),
		});
}

struct view floor_view_heads(const struct floor *floor, int64_t rows, int64_t cols, bool strided)
{
	const int64_t heads = floor->shape.n_heads, row = 3 * (int64_t)floor->shape.width;
	struct view view = { .n_dims = 4,
		.dims = { floor->batch, heads, rows, cols },
		.precision = floor->between };

	view.strides[3] = 1;
	view.strides[2] = strided ? row : cols;
	view.strides[1] = strided ? cols : rows * cols;
	view.strides[0] = strided ? floor->n_tokens * row : heads * rows * cols;
	return view;
}

struct view floor_view_transposed(struct view view)
{
	const int last = view.n_dims - 1;
	struct view t = view;

	t.dims[last - 1] = view.dims[last];
	t.dims[last] = view.dims[last - 1];
	t.strides[last - 1] = view.strides[last];
	t.strides[last] = view.strides[last - 1];
	return t;
}

static int attention_new(struct floor *floor, struct floor_products *products, int64_t n_queries)
{
	const int64_t head = floor->shape.width / floor->shape.n_heads, t = floor->n_tokens;
	const bool strided = floor->layout == FLOOR_STRIDED;
	const struct view probs = floor_view_heads(floor, n_queries, t, false);
	int r;

	r = op_matmul_new(&products->scores, floor->onednn,
		&(struct op_matmul){
			.src = floor_view_heads(floor, n_queries, head, strided),
			.weights = strided ? floor_view_transposed(
						     floor_view_heads(floor, t, head, true))
					   : floor_view_heads(floor, head, t, false),
			.dst = probs,
		});
	if (r < 0)
		return r;
	return op_matmul_new(&products->mix, floor->onednn,
		&(struct op_matmul){
			.src = probs,
			.weights = floor_view_heads(floor, t, head, strided),
			.dst = floor_view_heads(floor, n_queries, head, false),
		});
}

static int products_new(struct floor *floor, struct floor_products *products, int64_t n_queries)
{
	int r = attention_new(floor, products, n_queries);

	for (unsigned i = 0; i < FLOOR_N_LAYERS && r == 0; i++) {
		int64_t k, n;

		floor_layer_shape(&floor->shape, i, &k, &n);
		r = floor_linear_new(floor, &products->layers[i], floor->weights[i],
			floor->batch * (i == FLOOR_QKV ? floor->n_tokens : n_queries), k, n,
			floor->precision);
	}
	return r;
}

int floor_weight_new(struct floor *floor, struct packed **ret_packed, int64_t k, int64_t n,
	enum packed_source source, enum precision precision)
{
	_cleanup_(freep) float *values = malloc((size_t)(k * n) * sizeof(float));
	int r;

	if (!values)
		return -ENOMEM;
	for (int64_t i = 0; i < k * n; i++)
		if (precision == PRECISION_INT8)
			((int8_t *)values)[i] = (int8_t)(i % 251 - 125);
		else
			values[i] = (float)(i % 251 - 125) / 4096;
	r = packed_new(ret_packed, floor->onednn, k, n, source, precision);
	return r < 0 ? r : packed_write(*ret_packed, values);
}

static int weights_new(struct floor *floor)
{
	const struct vit_shape *shape = &floor->shape;
	const int64_t patch = 3 * (int64_t)shape->patch * shape->patch;
	int r;

	floor->weights = calloc((size_t)shape->depth * FLOOR_N_LAYERS, sizeof(struct packed *));
	if (!floor->weights)
		return -ENOMEM;
	r = floor_weight_new(
		floor, &floor->patch_weight, patch, shape->width, PACKED_N_BY_K, floor->between);
	for (unsigned i = 0; i < shape->depth * FLOOR_N_LAYERS && r == 0; i++) {
		int64_t k, n;

		floor_layer_shape(shape, i % FLOOR_N_LAYERS, &k, &n);
		r = floor_weight_new(
			floor, &floor->weights[i], k, n, PACKED_N_BY_K, floor->precision);
	}
	if (r == 0)
		r = floor_linear_new(floor, &floor->patch, floor->patch_weight,
			(int64_t)floor->batch * (floor->n_tokens - 1), patch, shape->width,
			floor->between);
	return r;
}

/* Of what a product reads or writes: int8 gives sums. */
static size_t value_bytes(const struct floor *floor)
{
	return floor->precision == PRECISION_INT8 ? sizeof(int32_t)
						  : precision_bytes(floor->precision);
}

/* Not zero: a product of zeros may be cheaper. */
static void *take(struct floor *floor, size_t n)
{
	const size_t n_bytes = n * value_bytes(floor);
	void *values = arena_take(floor->arena, n_bytes);

	for (size_t i = 0; i < n_bytes / precision_bytes(floor->between); i++) {
		float value = (float)(i % 127) / 1024;
		uint32_t bits;

		memcpy(&bits, &value, sizeof(bits));
		if (floor->between == PRECISION_BF16)
			((uint16_t *)values)[i] = (uint16_t)(bits >> 16);
		else
			((float *)values)[i] = value;
	}
	return values;
}

static size_t widest(const struct vit_shape *shape)
{
	const size_t patch = 3 * (size_t)shape->patch * shape->patch;
	const size_t qkv = 3 * (size_t)shape->width;
	const size_t wide = patch > qkv ? patch : qkv;

	return wide > shape->mlp ? wide : shape->mlp;
}

static int buffers_new(struct floor *floor)
{
	const struct vit_shape *shape = &floor->shape;
	const size_t rows = (size_t)floor->batch * floor->n_tokens;
	const size_t size = value_bytes(floor);
	const size_t n_wide = rows * widest(shape), n_narrow = rows * shape->width;
	const size_t n_probs = rows * shape->n_heads * floor->n_tokens;
	int r;

	r = arena_new(
		&floor->arena, 2 * (arena_round(n_wide * size) + arena_round(n_narrow * size) +
					   arena_round(n_probs * size)));
	if (r < 0)
		return r;
	floor->in = (struct floor_buffers){ take(floor, n_wide), take(floor, n_narrow),
		take(floor, n_probs) };
	floor->out = (struct floor_buffers){ take(floor, n_wide), take(floor, n_narrow),
		take(floor, n_probs) };
	return 0;
}

int floor_new(struct floor **ret_floor, const struct floor_options *options)
{
	_cleanup_(floor_freep) struct floor *floor = calloc(1, sizeof(*floor));
	const uint32_t grid = options->px / options->shape->patch;
	int r;

	if (!floor)
		return -ENOMEM;
	floor->shape = *options->shape;
	floor->batch = options->batch;
	floor->n_tokens = 1 + grid * grid;
	floor->layout = options->layout;
	floor->precision = options->precision;
	r = onednn_new(&floor->onednn);
	if (r < 0)
		return r;
	floor->between = onednn_between(floor->onednn, floor->precision);
	r = buffers_new(floor);
	if (r == 0)
		r = weights_new(floor);
	if (r == 0)
		r = products_new(floor, &floor->all, floor->n_tokens);
	if (r == 0)
		r = products_new(floor, &floor->last, 1);
	if (r == 0 && options->back)
		r = floor_back_init(floor);
	if (r < 0)
		return r;
	*ret_floor = TAKE_PTR(floor);
	return 0;
}

int floor_run_linear(struct op *op, const void *src, const struct packed *weights, void *dst)
{
	op_bind(op, OP_SRC, src);
	op_use(op, weights);
	op_bind(op, OP_DST, dst);
	return op_run(op);
}

size_t floor_third(const struct floor *floor)
{
	const size_t width = floor->shape.width;
	const size_t n =
		floor->layout == FLOOR_STRIDED ? 1 : (size_t)floor->batch * floor->n_tokens;

	return n * width * precision_bytes(floor->between);
}

static int run_block(struct floor *floor, struct floor_products *p, struct packed *const *weights)
{
	const struct floor_buffers *in = &floor->in, *out = &floor->out;
	const size_t third = floor_third(floor);
	const char *qkv = in->wide;
	int r = floor_run_linear(p->layers[FLOOR_QKV], in->narrow, weights[FLOOR_QKV], out->wide);

	if (r == 0)
		r = op_run_on(p->scores, qkv, qkv + third, out->probs);
	if (r == 0)
		r = op_run_on(p->mix, in->probs, qkv + 2 * third, out->narrow);
	if (r == 0)
		r = floor_run_linear(
			p->layers[FLOOR_PROJ], in->narrow, weights[FLOOR_PROJ], out->wide);
	if (r == 0)
		r = floor_run_linear(
			p->layers[FLOOR_FC1], in->narrow, weights[FLOOR_FC1], out->wide);
	if (r == 0)
		r = floor_run_linear(
			p->layers[FLOOR_FC2], in->wide, weights[FLOOR_FC2], out->narrow);
	return r;
}

int floor_run(struct floor *floor)
{
	int r = floor_run_linear(
		floor->patch, floor->in.wide, floor->patch_weight, floor->out.narrow);

	for (uint32_t b = 0; b < floor->shape.depth && r == 0; b++)
		r = run_block(floor, b + 1 < floor->shape.depth ? &floor->all : &floor->last,
			floor->weights + (size_t)b * FLOOR_N_LAYERS);
	return r;
}
