/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_HARDNESS_H
#define KAMEN_LEARN_HARDNESS_H

#include "base/diag.h"
#include "base/digest.h"
#include "model/vit.h"

/**
 * Which patches of an image a site's model finds hard: the loss predictor of an hpm round
 * (algorithms.md 2), asked about the whole image. It reads what the model says of every token under
 * the mask of the same round and belongs to that mask alone. Learnt by comparing patches of one
 * image: the values have an order but no unit.
 *
 * On disk (.khard, beside the .kmask) a safetensors file: metadata `format`, `base`, `mask`,
 * `num_heads`, `grid`, `xxh3`; tensors entry.*, trunk.blocks.N.* and trunk.norm.* with timm's names,
 * exit.*. Data only; read
 * like anything foreign.
 */
struct hardness;

/** Larger files are not looked at. */
#define HARDNESS_MAX_BYTES ((size_t)64 << 20)
/** Side of the largest map. */
#define HARDNESS_MAX_GRID 64u

/** What a file says of itself. */
struct hardness_info {
	struct digest base, mask;              /* of the model's file; mask_digest() of the bits */
	uint32_t width;                        /* of the model that it reads: D */
	uint32_t grid;                         /* side in patches of what it was learnt from */
	uint32_t inner, depth, n_heads, n_mlp; /* of its blocks */
};

/** How many values a predictor has: its tensors one behind the other, in the file's order. */
size_t hardness_n_values(const struct hardness_info *info);
/** values (hardness_n_values()); ret_data malloc'ed. @return 0, -EINVAL: no such shape, -ENOMEM */
int hardness_encode(const struct hardness_info *info, const float *values, void **ret_data,
	size_t *ret_n_bytes);

/** Looks at everything in the file, without a model.
 * @return 0, -EBADMSG: damaged or no such file (diag), -EFBIG, -ENOMEM */
int hardness_check(
	struct hardness_info *ret_info, const void *data, size_t n_bytes, struct diag *diag);

/**
 * @param vit   whose tokens it is to read; the thread that loads it calls hardness_map()
 * @param data  not needed afterwards
 * @return as hardness_check(); -ESTALE: of another model
 */
int hardness_load(struct hardness **ret_hardness, struct vit *vit, const void *data, size_t n_bytes,
	struct diag *diag);
void hardness_free(struct hardness *hardness);
DEFINE_CLEANUP(struct hardness *, hardness_free)

const struct hardness_info *hardness_info(const struct hardness *hardness);

/**
 * Allocates only when the grid is another than the last call's.
 *
 * @param tokens  (n, 1 + grid^2, width) after the last norm, class token first, of the whole image
 *                under the mask that the file names
 * @param map     (n, grid, grid) by rows from above
 * @return 0, -EINVAL: grid is 0 or above HARDNESS_MAX_GRID, -ENOMEM, -EIO: oneDNN refused
 */
int hardness_map(
	struct hardness *hardness, const float *tokens, uint32_t n, uint32_t grid, float *map);

#endif
