/* SPDX-License-Identifier: Apache-2.0 */
#include "floor_internal.h"

#include <errno.h>
#include <stdlib.h>

/* A matrix that is transposed for its product: already, or by its strides. */
static struct view turned(const struct floor *floor, int64_t rows, int64_t cols)
{
	const struct view dense = view_in(view_2d(rows, cols), floor->precision);

	return floor->layout == FLOOR_STRIDED
		       ? floor_view_transposed(view_in(view_2d(cols, rows), floor->precision))
		       : dense;
}

/* dW = dy^T x */
static int dw_new(struct floor *floor, struct op **ret_op, int64_t rows, int64_t k, int64_t n)
{
	return op_matmul_new(ret_op, floor->onednn,
		&(struct op_matmul){
			.src = turned(floor, n, rows),
			.weights = view_in(view_2d(rows, k), floor->precision),
			.dst = view_2d(n, k),
		});
}

static int attention_new(struct floor *floor, struct floor_gradients *grads, int64_t q)
{
	const int64_t head = floor->shape.width / floor->shape.n_heads, t = floor->n_tokens;
	const bool strided = floor->layout == FLOOR_STRIDED;
	const struct view of_q = floor_view_heads(floor, q, head, strided);
	const struct view of_k = floor_view_heads(floor, t, head, strided);
	const struct view out = floor_view_heads(floor, q, head, false);
	const struct view probs = floor_view_heads(floor, q, t, false);
	const struct view probs_t =
		strided ? floor_view_transposed(probs) : floor_view_heads(floor, t, q, false);
	const struct view v_t =
		strided ? floor_view_transposed(of_k) : floor_view_heads(floor, head, t, false);
	const struct {
		struct op **op;
		struct op_matmul matmul;
	} products[] = {
		{ &grads->dprobs, { .src = out, .weights = v_t, .dst = probs } },
		{ &grads->dv, { .src = probs_t, .weights = out, .dst = of_k } },
		{ &grads->dq, { .src = probs, .weights = of_k, .dst = of_q } },
		{ &grads->dk, { .src = probs_t, .weights = of_q, .dst = of_k } },
	};
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(products) && r == 0; i++)
		r = op_matmul_new(products[i].op, floor->onednn, &products[i].matmul);
	return r;
}

static int gradients_new(struct floor *floor, struct floor_gradients *grads, int64_t n_queries)
{
	int r = attention_new(floor, grads, n_queries);

	for (unsigned i = 0; i < FLOOR_N_LAYERS && r == 0; i++) {
		const int64_t rows = floor->batch * (i == FLOOR_QKV ? floor->n_tokens : n_queries);
		int64_t k, n;

		floor_layer_shape(&floor->shape, i, &k, &n);
		r = floor_linear_new(
			floor, &grads->dx[i], floor->back_weights[i], rows, n, k, floor->precision);
		if (r == 0)
			r = dw_new(floor, &grads->dw[i], rows, k, n);
	}
	return r;
}

static int weights_new(struct floor *floor)
{
	const unsigned n_weights = floor->shape.depth * FLOOR_N_LAYERS;
	int64_t k, n;
	size_t n_bytes = 0;
	int r = 0;

	floor->back_weights = calloc(n_weights, sizeof(struct packed *));
	floor->grads = calloc(n_weights, sizeof(float *));
	if (!floor->back_weights || !floor->grads)
		return -ENOMEM;
	for (unsigned i = 0; i < n_weights && r == 0; i++) {
		floor_layer_shape(&floor->shape, i % FLOOR_N_LAYERS, &k, &n);
		r = floor_weight_new(
			floor, &floor->back_weights[i], n, k, PACKED_K_BY_N, floor->precision);
		n_bytes += arena_round((size_t)(k * n) * sizeof(float));
	}
	if (r == 0)
		r = arena_new(&floor->grad_arena, n_bytes);
	for (unsigned i = 0; i < n_weights && r == 0; i++) {
		floor_layer_shape(&floor->shape, i % FLOOR_N_LAYERS, &k, &n);
		floor->grads[i] = arena_take(floor->grad_arena, (size_t)(k * n) * sizeof(float));
	}
	return r;
}

int floor_back_init(struct floor *floor)
{
	int r = weights_new(floor);

	if (r == 0)
		r = gradients_new(floor, &floor->all_back, floor->n_tokens);
	return r == 0 ? gradients_new(floor, &floor->last_back, 1) : r;
}

static void gradients_free(struct floor_gradients *grads)
{
	for (unsigned i = 0; i < FLOOR_N_LAYERS; i++) {
		op_free(grads->dx[i]);
		op_free(grads->dw[i]);
	}
	op_free(grads->dprobs);
	op_free(grads->dv);
	op_free(grads->dq);
	op_free(grads->dk);
}

void floor_back_done(struct floor *floor)
{
	gradients_free(&floor->all_back);
	gradients_free(&floor->last_back);
	for (unsigned i = 0; floor->back_weights && i < floor->shape.depth * FLOOR_N_LAYERS; i++)
		packed_free(floor->back_weights[i]);
	free(floor->back_weights);
	free(floor->grads);
	arena_free(floor->grad_arena);
}

static int run_attention(struct floor *floor, struct floor_gradients *grads)
{
	const struct floor_buffers *in = &floor->in, *out = &floor->out;
	const size_t third = floor_third(floor);
	const char *qkv = in->wide;
	char *d_qkv = out->wide;
	int r = op_run_on(grads->dprobs, in->narrow, qkv + 2 * third, out->probs);

	if (r == 0)
		r = op_run_on(grads->dv, in->probs, in->narrow, d_qkv + 2 * third);
	if (r == 0)
		r = op_run_on(grads->dq, in->probs, qkv + third, d_qkv);
	return r == 0 ? op_run_on(grads->dk, in->probs, qkv, d_qkv + third) : r;
}

static int run_layer(
	struct floor *floor, struct floor_gradients *grads, uint32_t b, enum floor_layer layer)
{
	const unsigned i = b * FLOOR_N_LAYERS + layer;
	const bool wide_in = layer == FLOOR_FC2,
		   wide_out = layer == FLOOR_QKV || layer == FLOOR_FC1;
	const void *x = wide_in ? floor->in.wide : floor->in.narrow;
	const void *dy = wide_out ? floor->in.wide : floor->in.narrow;
	void *dx = wide_in ? floor->out.wide : floor->out.narrow;
	int r = op_run_on(grads->dw[layer], dy, x, floor->grads[i]);

	/* What lies below the first block is frozen. */
	if (r < 0 || i == FLOOR_QKV)
		return r;
	return floor_run_linear(grads->dx[layer], dy, floor->back_weights[i], dx);
}

static int run_block(struct floor *floor, struct floor_gradients *grads, uint32_t b)
{
	int r = run_layer(floor, grads, b, FLOOR_FC2);

	if (r == 0)
		r = run_layer(floor, grads, b, FLOOR_FC1);
	if (r == 0)
		r = run_layer(floor, grads, b, FLOOR_PROJ);
	if (r == 0)
		r = run_attention(floor, grads);
	return r == 0 ? run_layer(floor, grads, b, FLOOR_QKV) : r;
}

int floor_run_back(struct floor *floor)
{
	const uint32_t last = floor->shape.depth - 1;
	int r = run_block(floor, &floor->last_back, last);

	for (uint32_t b = last; r == 0 && b-- > 0;)
		r = run_block(floor, &floor->all_back, b);
	return r;
}
