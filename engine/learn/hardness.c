/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "learn/hardness_file.h"
#include "model/dense.h"
#include "model/sincos.h"
#include "model/vit_params.h"

struct hardness {
	struct hardness_info info;
	struct vit *model; /* whose tokens these are */
	uint32_t n_at_once;
	struct vit *trunk;
	struct slot *slot;
	struct params *params;
	float *values; /* (n_values) */
	uint32_t grid; /* of what is below; 0: none yet */
	struct vit_tape *tape;
	struct dense *entry;
	float *positions; /* (T, inner) */
	float *tokens;    /* (n_at_once, T, width) of a part that is not full */
	float *out;       /* (n_at_once, T, inner) */
};

static uint32_t n_tokens(const struct hardness *hardness)
{
	return 1 + hardness->grid * hardness->grid;
}

static const float *values_of(const struct hardness *hardness, const char *name)
{
	return hardness->values + params_find(hardness->params, name)->offset;
}

/* Behind the entry's two tensors. */
static float *trunk_values(const struct hardness *hardness)
{
	return hardness->values + hardness->params->tensors[2].offset;
}

int hardness_new(struct hardness **ret_hardness, struct vit *model,
	const struct hardness_info *info, uint32_t n_at_once)
{
	_cleanup_(hardness_freep) struct hardness *hardness = calloc(1, sizeof(*hardness));
	const struct vit_shape shape = hardness_trunk(info);
	int r;

	if (!hardness)
		return -ENOMEM;
	hardness->info = *info;
	hardness->model = model;
	hardness->n_at_once = n_at_once;
	r = hardness_params(&hardness->params, info);
	if (r < 0)
		return r;
	hardness->values = calloc(hardness->params->n_values, sizeof(*hardness->values));
	if (!hardness->values)
		return -ENOMEM;
	r = vit_over(&hardness->trunk, &shape, false, trunk_values(hardness), NULL);
	if (r == 0)
		r = vit_slot_new(&hardness->slot, hardness->trunk, SLOT_INFER);
	if (r == 0)
		r = slot_apply(hardness->slot, NULL);
	if (r < 0)
		return r;
	*ret_hardness = TAKE_PTR(hardness);
	return 0;
}

int hardness_set(struct hardness *hardness, const float *values)
{
	int r;

	memcpy(hardness->values, values, hardness->params->n_values * sizeof(*values));
	r = vit_load(hardness->trunk, trunk_values(hardness));
	return r < 0 ? r : slot_reload(hardness->slot, NULL);
}

int hardness_load(struct hardness **ret_hardness, struct vit *vit, const void *data, size_t n_bytes,
	struct diag *diag)
{
	_cleanup_(hardness_freep) struct hardness *hardness = NULL;
	_cleanup_(freep) float *values = NULL;
	struct hardness_info info;
	int r;

	r = hardness_decode(&info, &values, data, n_bytes, diag);
	if (r < 0)
		return r;
	if (!digest_equal(&info.base, vit_digest(vit)) || info.width != vit_shape(vit)->width)
		return diag_set(diag, ESTALE, "hardness: of another model");
	r = hardness_new(&hardness, vit, &info, 1);
	if (r == 0)
		r = hardness_set(hardness, values);
	if (r < 0)
		return diag_set(diag, -r, "hardness: cannot be built: %s", strerror(-r));
	*ret_hardness = TAKE_PTR(hardness);
	return 0;
}

static void forget_grid(struct hardness *hardness)
{
	hardness->grid = 0;
	vit_tape_free(TAKE_PTR(hardness->tape));
	dense_free(TAKE_PTR(hardness->entry));
	free(TAKE_PTR(hardness->positions));
	free(TAKE_PTR(hardness->tokens));
	free(TAKE_PTR(hardness->out));
}

void hardness_free(struct hardness *hardness)
{
	if (!hardness)
		return;
	forget_grid(hardness);
	slot_free(hardness->slot);
	vit_free(hardness->trunk);
	params_free(hardness->params);
	free(hardness->values);
	free(hardness);
}

const struct hardness_info *hardness_info(const struct hardness *hardness)
{
	return &hardness->info;
}

static int build_grid(struct hardness *hardness)
{
	const struct hardness_info *info = &hardness->info;
	const uint32_t n = n_tokens(hardness), n_rows = hardness->n_at_once * n;
	const struct vit_tape_options options = {
		.batch = hardness->n_at_once,
		.n_tokens = n,
		.precision = PRECISION_F32,
		.all_out = true,
		.forward_only = true,
	};
	int r;

	hardness->positions = malloc((size_t)n * info->inner * sizeof(float));
	hardness->tokens = calloc((size_t)n_rows * info->width, sizeof(float));
	hardness->out = malloc((size_t)n_rows * info->inner * sizeof(float));
	if (!hardness->positions || !hardness->tokens || !hardness->out)
		return -ENOMEM;
	sincos_positions_like(hardness->positions, info->inner, hardness->grid, info->grid);
	r = dense_new(&hardness->entry, hardness->model,
		&(struct dense_shape){
			.n_rows = n_rows,
			.n_out = info->inner,
			.n_in = info->width,
			.forward_only = true,
		});
	return r < 0 ? r : vit_tape_open(&hardness->tape, hardness->trunk, &options);
}

static int set_grid(struct hardness *hardness, uint32_t grid)
{
	int r;

	if (grid == 0 || grid > HARDNESS_MAX_GRID)
		return -EINVAL;
	if (grid == hardness->grid)
		return 0;
	forget_grid(hardness);
	hardness->grid = grid;
	r = build_grid(hardness);
	if (r < 0)
		forget_grid(hardness);
	return r;
}

/* What the trunk says to the map: one number a patch. */
static void exit_rows(const struct hardness *hardness, uint32_t n, float *map)
{
	const uint32_t inner = hardness->info.inner;
	const float *weight = values_of(hardness, "exit.weight");
	const float bias = *values_of(hardness, "exit.bias"), *row = hardness->out;

	for (uint32_t i = 0; i < n; i++)
		for (uint32_t t = 0; t < n_tokens(hardness); t++, row += inner) {
			float sum = bias;

			for (uint32_t d = 0; d < inner; d++)
				sum += weight[d] * row[d];
			if (t > 0)
				*map++ = sum;
		}
}

/* n images, n_at_once at the most. */
static int map_part(struct hardness *hardness, const float *tokens, uint32_t n, float *map)
{
	const struct hardness_info *info = &hardness->info;
	const size_t n_rows = (size_t)n_tokens(hardness) * info->inner;
	float *x = vit_tape_input(hardness->tape);
	int r;

	if (n < hardness->n_at_once) {
		memcpy(hardness->tokens, tokens,
			(size_t)n * n_tokens(hardness) * info->width * sizeof(*tokens));
		tokens = hardness->tokens;
	}
	r = dense_forward(hardness->entry, values_of(hardness, "entry.weight"),
		values_of(hardness, "entry.bias"), tokens, x);
	for (uint32_t i = 0; r == 0 && i < hardness->n_at_once; i++)
		for (size_t j = 0; j < n_rows; j++)
			x[i * n_rows + j] += hardness->positions[j];
	if (r == 0)
		r = vit_tape_forward(hardness->tape, hardness->slot, hardness->out);
	if (r == 0)
		exit_rows(hardness, n, map);
	return r;
}

int hardness_map(
	struct hardness *hardness, const float *tokens, uint32_t n, uint32_t grid, float *map)
{
	int r = set_grid(hardness, grid);

	for (uint32_t i = 0; r == 0 && i < n; i += hardness->n_at_once) {
		const uint32_t left = n - i;

		r = map_part(hardness,
			tokens + (size_t)i * n_tokens(hardness) * hardness->info.width,
			left < hardness->n_at_once ? left : hardness->n_at_once,
			map + (size_t)i * grid * grid);
	}
	return r;
}
