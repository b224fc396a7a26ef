/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_MODEL_PARAMS_H
#define KAMEN_MODEL_PARAMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

#define PARAM_MAX_DIMS 4
#define PARAM_NAME_CHARS 56

/** One trainable tensor. */
struct param {
	char name[PARAM_NAME_CHARS];
	unsigned n_dims;
	uint64_t dims[PARAM_MAX_DIMS];
	size_t n, offset; /* of its first value in any flat array of values or gradients */
	bool decays;   /* weight decay acts on it: what is a matrix, not biases, norms and tokens */
	bool is_fixed; /* never learnt */
};

/** What is trained, as one flat array of values: which tensors, and where each of them lies. */
struct params {
	struct param *tensors;
	unsigned n_tensors;
	size_t n_values;
};

int params_new(struct params **ret_params);
void params_free(struct params *params);
DEFINE_CLEANUP(struct params *, params_free)

/** Appends a tensor; it decays where it has two dimensions or more.
 * @return 0, -EEXIST: that name is there, -EINVAL: no such shape or name, -ENOMEM */
int params_add(struct params *params, const char *name, unsigned n_dims, const uint64_t *dims);
/** A linear layer's NAME.weight (n_out, n_in) and NAME.bias (n_out). */
int params_add_linear(struct params *params, const char *name, uint64_t n_out, uint64_t n_in);
/** A norm's NAME.weight and NAME.bias, (n) each. */
int params_add_norm(struct params *params, const char *name, uint64_t n);
/** All of another's behind the present ones, as PREFIX.NAME. */
int params_append(struct params *params, const char *prefix, const struct params *others);
/** NULL: there is none. */
struct param *params_find(const struct params *params, const char *name);

/** A safetensors file image of all values; metadata as safetensors_encode(). */
int params_encode(const struct params *params, const float *values, const char *const *metadata,
	void **ret_data, size_t *ret_n_bytes);

/** Whether it is the weight of a norm, which starts at 1. */
bool param_is_norm_weight(const struct param *param);

/* Starts of one tensor's values, each from a stream of its own: (seed, digest of its name), whatever
 * list it is in. Part of the format of a version. */
#define PARAM_STREAM 0x800u

/** Uniform within sqrt(6 / (n_in + n_out)), of a tensor (n_out, n_in...). */
void param_start_xavier(const struct param *param, float *values, uint64_t seed);
/** Normal of that deviation, drawn again beyond two of it. */
void param_start_normal(const struct param *param, float *values, float std, uint64_t seed);
void param_start_with(const struct param *param, float *values, float value);

#endif
