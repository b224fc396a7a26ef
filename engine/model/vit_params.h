/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_MODEL_VIT_PARAMS_H
#define KAMEN_MODEL_VIT_PARAMS_H

#include "model/params.h"
#include "model/vit.h"

/*
 * A ViT whose weights are learnt. All its values are one flat array, in this order: the maskable
 * tensors as its mask layout has them (so that a gradient of those is the beginning of a gradient of
 * all), norms, then class token, positions and patch embedding unless shape.patch is 0.
 */

/** The list for a shape without a head; timm's names. fixed_positions: they are not learnt.
 * @return 0, -EINVAL: no such shape, -ENOMEM */
int vit_params_new(struct params **ret_params, const struct vit_shape *shape, bool fixed_positions);

enum vit_start {
	VIT_START_NORMAL, /* timm's, DINO's: weights normal with deviation .02 */
	VIT_START_XAVIER, /* MAE's: weights uniform by Xavier */
};
/** Values to start at: biases 0, norms 1, tokens normal with deviation .02; positions too, or, where
 * they are fixed, of sines (model/sincos.h), and those added with a late class token 0. */
void vit_params_start(const struct params *params, const struct vit_shape *shape, float *values,
	enum vit_start start, uint64_t seed);

/** A model over a copy of those values: like one of a file, but vit_load() changes it, and the way
 * back gives gradients of all its values (vit_tape_backward()). -EINVAL (diag), -ENOMEM, -EIO */
int vit_over(struct vit **ret_vit, const struct vit_shape *shape, bool fixed_positions,
	const float *values, struct diag *diag);
/** The values of a frozen model of the list's shape, for another to go on from. -EINVAL: it is not of
 * that shape */
int vit_params_take(const struct params *params, const struct vit *vit, float *values);
/** Other values. Slots are then to be packed anew: slot_reload(). -EINVAL: it is frozen, -EIO */
int vit_load(struct vit *vit, const float *values);
/** Its present values; NULL: it is frozen. */
const float *vit_values(const struct vit *vit);
/** What is learnt of it; NULL: nothing, it is frozen. */
const struct params *vit_params(const struct vit *vit);

/** A safetensors file that vit_new() reads. prep: what it was learnt with, for its metadata. */
int vit_params_encode(const struct params *params, const struct vit_shape *shape,
	const float *values, const struct prep *prep, void **ret_data, size_t *ret_n_bytes);

#endif
