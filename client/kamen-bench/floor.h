/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_BENCH_FLOOR_H
#define KAMEN_BENCH_FLOOR_H

#include "model/vit.h"

/**
 * The products of one forward pass and nothing else: no norm, softmax, bias or activation. Every
 * block has weights of its own, packed as oneDNN likes them, so that they are as cold as in the
 * model. The last block works for the class token alone, as the model's does.
 */
struct floor;

enum floor_layout {
	FLOOR_DENSE,   /* attention's operands lie as its products read them fastest */
	FLOOR_STRIDED, /* as views of the qkv product's result */
};
#define FLOOR_N_LAYOUTS 2

int floor_new(struct floor **ret_floor, const struct vit_shape *shape, uint32_t batch, uint32_t px,
	enum floor_layout layout, enum precision precision);
void floor_free(struct floor *floor);
DEFINE_CLEANUP(struct floor *, floor_free)

/** One pass. @return 0 or -EIO */
int floor_run(struct floor *floor);

#endif
