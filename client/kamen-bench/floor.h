/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_BENCH_FLOOR_H
#define KAMEN_BENCH_FLOOR_H

#include "model/vit.h"

/**
 * The products of one pass and nothing else: no norm, softmax, bias or activation. Every block has
 * weights of its own, packed as oneDNN likes them, so that they are as cold as in the model. The
 * last block works for the class token alone, as the model's does. Attention's two are matmul's
 * everywhere; in f32 on AVX2 the model's, as convolutions, take less.
 */
struct floor;

enum floor_layout {
	FLOOR_DENSE, /* operands lie as matmul reads them fastest */
	FLOOR_STRIDED, /* as the model has them: views of the qkv product's result, transposed views */
};
#define FLOOR_N_LAYOUTS 2

struct floor_options {
	const struct vit_shape *shape;
	uint32_t batch, px;
	enum floor_layout layout;
	enum precision precision;
	bool back; /* the way back too */
};

int floor_new(struct floor **ret_floor, const struct floor_options *options);
void floor_free(struct floor *floor);
DEFINE_CLEANUP(struct floor *, floor_free)

/** One forward pass. @return 0 or -EIO */
int floor_run(struct floor *floor);
/**
 * One way back: of every layer the gradient of its weight, in f32, and of what it reads (but for the
 * first block's: what lies below is frozen), and attention's four. Wants `back`.
 * @return 0 or -EIO
 */
int floor_run_back(struct floor *floor);

#endif
