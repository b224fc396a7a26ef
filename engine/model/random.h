/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_MODEL_RANDOM_H
#define KAMEN_MODEL_RANDOM_H

#include "model/vit.h"

/**
 * A seeded untrained ViT as a safetensors file image, for tests, benchmarks and a demo without a
 * model: mechanics only. Weights normal with std 1/sqrt(n_in) (so that signals keep their size),
 * biases and positions small; timm's tensor names; metadata num_heads.
 */
int random_vit_encode(
	const struct vit_shape *shape, uint64_t seed, void **ret_data, size_t *ret_n_bytes);
/** Shapes by name: "vit_t" (192, 12 blocks, 3 heads), "vit_s" (384, 6 heads), "vit_b" (768, 12
 * heads), all patch 16 and grid 14, and "vit_demo" (96, 4 blocks, 3 heads, patch 16, grid 6).
 * -EINVAL: unknown */
int random_vit_shape(struct vit_shape *ret_shape, const char *name);

#endif
