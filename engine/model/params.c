/* SPDX-License-Identifier: Apache-2.0 */
#include "model/params.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/digest.h"
#include "base/rng.h"
#include "model/safetensors.h"

int params_new(struct params **ret_params)
{
	struct params *params = calloc(1, sizeof(*params));

	if (!params)
		return -ENOMEM;
	*ret_params = params;
	return 0;
}

void params_free(struct params *params)
{
	if (!params)
		return;
	free(params->tensors);
	free(params);
}

struct param *params_find(const struct params *params, const char *name)
{
	for (unsigned i = 0; i < params->n_tensors; i++)
		if (strcmp(params->tensors[i].name, name) == 0)
			return &params->tensors[i];
	return NULL;
}

int params_add(struct params *params, const char *name, unsigned n_dims, const uint64_t *dims)
{
	struct param param = { .n_dims = n_dims, .n = 1, .decays = n_dims > 1 };
	struct param *tensors;

	if (n_dims > PARAM_MAX_DIMS || strlen(name) >= sizeof(param.name))
		return -EINVAL;
	if (params_find(params, name))
		return -EEXIST;
	for (unsigned i = 0; i < n_dims; i++) {
		param.dims[i] = dims[i];
		if (__builtin_mul_overflow(param.n, dims[i], &param.n) || dims[i] == 0)
			return -EINVAL;
	}
	tensors = reallocarray(params->tensors, params->n_tensors + 1, sizeof(*tensors));
	if (!tensors)
		return -ENOMEM;
	params->tensors = tensors;
	memcpy(param.name, name, strlen(name));
	param.offset = params->n_values;
	tensors[params->n_tensors++] = param;
	params->n_values += param.n;
	return 0;
}

static int add_part(struct params *params, const char *name, const char *part, unsigned n_dims,
	const uint64_t *dims)
{
	char full[PARAM_NAME_CHARS];

	if (snprintf(full, sizeof(full), "%s.%s", name, part) >= (int)sizeof(full))
		return -EINVAL;
	return params_add(params, full, n_dims, dims);
}

int params_add_linear(struct params *params, const char *name, uint64_t n_out, uint64_t n_in)
{
	int r = add_part(params, name, "weight", 2, (uint64_t[]){ n_out, n_in });

	return r < 0 ? r : add_part(params, name, "bias", 1, &n_out);
}

int params_add_norm(struct params *params, const char *name, uint64_t n)
{
	int r = add_part(params, name, "weight", 1, &n);

	return r < 0 ? r : add_part(params, name, "bias", 1, &n);
}

int params_append(struct params *params, const char *prefix, const struct params *others)
{
	int r = 0;

	for (unsigned i = 0; i < others->n_tensors && r == 0; i++) {
		const struct param *other = &others->tensors[i];

		r = add_part(params, prefix, other->name, other->n_dims, other->dims);
		if (r < 0)
			break;
		params->tensors[params->n_tensors - 1].decays = other->decays;
		params->tensors[params->n_tensors - 1].is_fixed = other->is_fixed;
	}
	return r;
}

int params_encode(const struct params *params, const float *values, const char *const *metadata,
	void **ret_data, size_t *ret_n_bytes)
{
	_cleanup_(freep) struct tensor_out *tensors =
		calloc(params->n_tensors + 1, sizeof(*tensors));

	if (!tensors)
		return -ENOMEM;
	for (unsigned i = 0; i < params->n_tensors; i++) {
		const struct param *param = &params->tensors[i];

		tensors[i] = (struct tensor_out){
			.name = param->name,
			.n_dims = param->n_dims,
			.data = values + param->offset,
		};
		memcpy(tensors[i].dims, param->dims, param->n_dims * sizeof(*param->dims));
	}
	return safetensors_encode(tensors, params->n_tensors, metadata, ret_data, ret_n_bytes);
}

static bool ends_with(const char *text, const char *end)
{
	const size_t n = strlen(text), n_end = strlen(end);

	return n >= n_end && strcmp(text + n - n_end, end) == 0;
}

bool param_is_norm_weight(const struct param *param)
{
	return ends_with(param->name, "norm.weight") || ends_with(param->name, "norm1.weight") ||
	       ends_with(param->name, "norm2.weight");
}

static struct rng stream_of(const struct param *param, uint64_t seed)
{
	const uint64_t name = digest_checksum(param->name, strlen(param->name));

	return rng_stream(seed, (uint32_t)name, (uint32_t)(name >> 32), PARAM_STREAM);
}

void param_start_xavier(const struct param *param, float *values, uint64_t seed)
{
	const size_t n_out = param->n_dims > 0 ? param->dims[0] : 1, n_in = param->n / n_out;
	const float most = sqrtf(6 / (float)(n_in + n_out));
	struct rng rng = stream_of(param, seed);

	for (size_t i = 0; i < param->n; i++)
		values[param->offset + i] = rng_range(&rng, -most, most);
}

void param_start_normal(const struct param *param, float *values, float std, uint64_t seed)
{
	struct rng rng = stream_of(param, seed);

	for (size_t i = 0; i < param->n; i++) {
		float draw = rng_normal(&rng);

		while (fabsf(draw) > 2)
			draw = rng_normal(&rng);
		values[param->offset + i] = std * draw;
	}
}

void param_start_with(const struct param *param, float *values, float value)
{
	for (size_t i = 0; i < param->n; i++)
		values[param->offset + i] = value;
}
