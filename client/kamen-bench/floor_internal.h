/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_BENCH_FLOOR_INTERNAL_H
#define KAMEN_BENCH_FLOOR_INTERNAL_H

#include "base/arena.h"
#include "floor.h"
#include "onednn/op.h"

enum floor_layer { FLOOR_QKV, FLOOR_PROJ, FLOOR_FC1, FLOOR_FC2, FLOOR_N_LAYERS };

/* A block's ops; the weights of the four layers are bound per block. */
struct floor_products {
	struct op *layers[FLOOR_N_LAYERS], *scores, *mix;
};

struct floor_gradients {
	struct op *dx[FLOOR_N_LAYERS], *dw[FLOOR_N_LAYERS];
	struct op *dprobs, *dv, *dq, *dk;
};

/* Of a batch in the floor's precision: (rows, max(mlp, 3 width, patch)), (rows, width),
 * (batch, heads, tokens, tokens). */
struct floor_buffers {
	void *wide, *narrow, *probs;
};

struct floor {
	struct onednn *onednn;
	struct arena *arena;
	struct vit_shape shape;
	uint32_t batch, n_tokens;
	enum floor_layout layout;
	enum precision precision;               /* of the layers */
	enum precision between;                 /* of attention's products and the patches' */
	struct packed *patch_weight, **weights; /* (depth, FLOOR_N_LAYERS) */
	struct op *patch;
	struct floor_products all, last;
	/* in is never written: what a chain of products does to its values is denormal at some point. */
	struct floor_buffers in, out;

	/* The way back only. */
	struct packed **back_weights; /* (depth, FLOOR_N_LAYERS) */
	struct floor_gradients all_back, last_back;
	struct arena *grad_arena;
	float **grads; /* (depth, FLOOR_N_LAYERS), each of the weight's size: as cold as those */
};

/* y = x W^T: W is (n, k). */
void floor_layer_shape(
	const struct vit_shape *shape, enum floor_layer layer, int64_t *ret_k, int64_t *ret_n);
/** A packed (k, n) of values that are not 0. */
int floor_weight_new(struct floor *floor, struct packed **ret_packed, int64_t k, int64_t n,
	enum packed_source source, enum precision precision);
/** A product of rows by packed weights. */
int floor_linear_new(struct floor *floor, struct op **ret_op, const struct packed *packed,
	int64_t rows, int64_t k, int64_t n, enum precision precision);
/** (batch, heads, rows, cols): dense, or rows of qkv's result. */
struct view floor_view_heads(const struct floor *floor, int64_t rows, int64_t cols, bool strided);
/** The last two dimensions change places. */
struct view floor_view_transposed(struct view view);
/** From one part of qkv's result to the next, in bytes. */
size_t floor_third(const struct floor *floor);
int floor_run_linear(struct op *op, const void *src, const struct packed *weights, void *dst);

/* floor_back.c */
int floor_back_init(struct floor *floor);
void floor_back_done(struct floor *floor);

#endif
