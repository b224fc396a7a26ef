/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_HARDNESS_FILE_H
#define KAMEN_LEARN_HARDNESS_FILE_H

#include "learn/hardness.h"
#include "model/params.h"

/** The blocks between entry and exit, as a model without a stem. */
struct vit_shape hardness_trunk(const struct hardness_info *info);

/** entry.*, trunk.* as vit_params_new() has it, exit.*. -EINVAL: no such shape */
int hardness_params(struct params **ret_params, const struct hardness_info *info);

/** Checks all, then reads the values into malloc'ed memory (ret_values NULL: only checks). */
int hardness_decode(struct hardness_info *ret_info, float **ret_values, const void *data,
	size_t n_bytes, struct diag *diag);

/** A predictor without values: hardness_set() gives some. model: what its tokens come from, and whose
 * oneDNN it runs on. Images are taken n_at_once at a time. */
int hardness_new(struct hardness **ret_hardness, struct vit *model,
	const struct hardness_info *info, uint32_t n_at_once);
/** Copies (hardness_n_values()) in the file's order. 0, -EIO */
int hardness_set(struct hardness *hardness, const float *values);

#endif
