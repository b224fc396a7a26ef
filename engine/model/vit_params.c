/* SPDX-License-Identifier: Apache-2.0 */
#include "model/vit_params.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "model/sincos.h"
#include "model/vit_internal.h"

static bool is_sound(const struct vit_shape *s)
{
	return s->depth > 0 && s->depth <= VIT_MAX_DEPTH && s->width > 0 &&
	       s->width <= VIT_MAX_WIDTH && s->mlp > 0 && s->mlp <= VIT_MAX_WIDTH &&
	       s->n_heads > 0 && s->width % s->n_heads == 0 && s->n_classes == 0 &&
	       s->patch <= VIT_MAX_PATCH && s->class_block < s->depth &&
	       (s->patch == 0 ? s->class_block == 0 : s->grid > 0 && s->grid <= VIT_MAX_GRID);
}

static int add_layers(struct params *params, const struct vit_shape *shape, uint32_t block)
{
	const uint32_t sizes[VIT_N_LAYERS][2] = {
		[VIT_QKV] = { 3 * shape->width, shape->width },
		[VIT_PROJ] = { shape->width, shape->width },
		[VIT_FC1] = { shape->mlp, shape->width },
		[VIT_FC2] = { shape->width, shape->mlp },
	};
	char name[PARAM_NAME_CHARS];
	int r = 0;

	for (int layer = 0; layer < VIT_N_LAYERS && r == 0; layer++) {
		(void)snprintf(
			name, sizeof(name), "blocks.%" PRIu32 ".%s", block, vit_layer_names[layer]);
		r = params_add_linear(params, name, sizes[layer][0], sizes[layer][1]);
	}
	return r;
}

static int add_norms(struct params *params, const struct vit_shape *shape)
{
	char name[PARAM_NAME_CHARS];
	int r = 0;

	for (uint32_t i = 0; i < 2 * shape->depth && r == 0; i++) {
		(void)snprintf(
			name, sizeof(name), "blocks.%" PRIu32 ".norm%" PRIu32, i / 2, 1 + i % 2);
		r = params_add_norm(params, name, shape->width);
	}
	return r < 0 ? r : params_add_norm(params, "norm", shape->width);
}

/* Tokens do not decay, whatever their dimensions. */
static int add_tokens(struct params *params, const char *name, uint64_t n, uint64_t width)
{
	int r = params_add(params, name, 3, (uint64_t[]){ 1, n, width });

	if (r == 0)
		params->tensors[params->n_tensors - 1].decays = false;
	return r;
}

static int add_stem(struct params *params, const struct vit_shape *shape, bool fixed_positions)
{
	const uint64_t width = shape->width, patch = shape->patch;
	const uint64_t n_positions = 1 + (uint64_t)shape->grid * shape->grid;
	int r;

	r = add_tokens(params, "cls_token", 1, width);
	if (r == 0)
		r = add_tokens(params, "pos_embed", n_positions, width);
	if (r < 0)
		return r;
	params->tensors[params->n_tensors - 1].is_fixed = fixed_positions;
	if (shape->class_block > 0)
		r = add_tokens(params, "pos_embed_class", n_positions, width);
	if (r < 0)
		return r;
	r = params_add(
		params, "patch_embed.proj.weight", 4, (uint64_t[]){ width, 3, patch, patch });
	return r < 0 ? r : params_add(params, "patch_embed.proj.bias", 1, &width);
}

int vit_params_new(struct params **ret_params, const struct vit_shape *shape, bool fixed_positions)
{
	_cleanup_(params_freep) struct params *params = NULL;
	int r;

	if (!is_sound(shape) || (fixed_positions && shape->width % 4))
		return -EINVAL;
	r = params_new(&params);
	for (uint32_t b = 0; r == 0 && b < shape->depth; b++)
		r = add_layers(params, shape, b);
	if (r == 0)
		r = add_norms(params, shape);
	if (r == 0 && shape->patch > 0)
		r = add_stem(params, shape, fixed_positions);
	if (r < 0)
		return r;

	*ret_params = TAKE_PTR(params);
	return 0;
}

void vit_params_start(const struct params *params, const struct vit_shape *shape, float *values,
	enum vit_start start, uint64_t seed)
{
	for (unsigned i = 0; i < params->n_tensors; i++) {
		const struct param *param = &params->tensors[i];

		if (param->n_dims == 1)
			param_start_with(param, values, param_is_norm_weight(param));
		else if (strcmp(param->name, "pos_embed") == 0 && param->is_fixed)
			sincos_positions(values + param->offset, shape->width, shape->grid);
		else if (strcmp(param->name, "pos_embed_class") == 0)
			param_start_with(param, values, 0);
		else if (start == VIT_START_XAVIER && param->decays)
			param_start_xavier(param, values, seed);
		else
			param_start_normal(param, values, .02F, seed);
	}
}

int vit_params_take(const struct params *params, const struct vit *vit, float *values)
{
	for (unsigned i = 0; i < params->n_tensors; i++) {
		const struct param *param = &params->tensors[i];
		const struct tensor *tensor =
			vit->base ? safetensors_find(base_tensors(vit->base), param->name) : NULL;

		if (!tensor || tensor->n_dims != param->n_dims ||
			memcmp(tensor->dims, param->dims, param->n_dims * sizeof(*param->dims)))
			return -EINVAL;
		tensor_to_f32(values + param->offset, tensor);
	}
	return 0;
}

int vit_params_encode(const struct params *params, const struct vit_shape *shape,
	const float *values, const struct prep *prep, void **ret_data, size_t *ret_n_bytes)
{
	char heads[16], side[16], crop[24], mean[64], std[64], block[16];
	const char *metadata[] = { "num_heads", heads, "input_size", side, "crop_mode",
		prep->resize == PREP_SQUASH ? "squash" : "center", "crop_pct", crop, "mean", mean,
		"std", std, shape->class_block ? "class_block" : NULL, block, NULL };

	(void)snprintf(block, sizeof(block), "%" PRIu32, shape->class_block);
	(void)snprintf(heads, sizeof(heads), "%" PRIu32, shape->n_heads);
	(void)snprintf(side, sizeof(side), "%" PRIu32, prep->input_px);
	(void)snprintf(crop, sizeof(crop), "%.9g", (double)prep->crop);
	(void)snprintf(mean, sizeof(mean), "%.9g %.9g %.9g", (double)prep->mean[0],
		(double)prep->mean[1], (double)prep->mean[2]);
	(void)snprintf(std, sizeof(std), "%.9g %.9g %.9g", (double)prep->std[0],
		(double)prep->std[1], (double)prep->std[2]);
	return params_encode(params, values, metadata, ret_data, ret_n_bytes);
}
