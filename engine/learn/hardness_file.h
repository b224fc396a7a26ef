/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_HARDNESS_FILE_H
#define KAMEN_LEARN_HARDNESS_FILE_H

#include "learn/hardness.h"
#include "model/params.h"

/** entry.*, trunk.* as vit_params_new() has it, exit.*. -EINVAL: no such shape */
int hardness_params(struct params **ret_params, const struct hardness_info *info);

/** Checks all, then reads the values into malloc'ed memory (ret_values NULL: only checks). */
int hardness_decode(struct hardness_info *ret_info, float **ret_values, const void *data,
	size_t n_bytes, struct diag *diag);

/** A predictor without values: hardness_set() gives some. Images are taken n_at_once at a time. */
int hardness_new(
	struct hardness **ret_hardness, const struct hardness_info *info, uint32_t n_at_once);
/** Copies (hardness_n_values()) in the file's order. 0, -ENOMEM, -EIO */
int hardness_set(struct hardness *hardness, const float *values);

#endif
