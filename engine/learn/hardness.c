/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "learn/hardness_file.h"
#include "model/vit_decoder.h"

/* A decoder of one trunk with one output, of all patches: it has a mask token that stands nowhere. */
struct hardness {
	struct hardness_info info;
	uint32_t n_at_once;
	float *values; /* in the decoder's order */
	uint32_t grid; /* of what is below; 0: none yet */
	struct vit_decoder *decoder;
	float *tokens; /* (n_at_once, T, width), */
	float *out;    /* (n_at_once, T - 1): of a part that is not full */
};

static size_t n_entry(const struct hardness_info *info)
{
	return (size_t)info->inner * info->width + info->inner;
}

int hardness_new(
	struct hardness **ret_hardness, const struct hardness_info *info, uint32_t n_at_once)
{
	_cleanup_(hardness_freep) struct hardness *hardness = calloc(1, sizeof(*hardness));

	if (!hardness)
		return -ENOMEM;
	hardness->info = *info;
	hardness->n_at_once = n_at_once;
	hardness->values = calloc(hardness_n_values(info) + info->inner, sizeof(*hardness->values));
	if (!hardness->values)
		return -ENOMEM;
	*ret_hardness = TAKE_PTR(hardness);
	return 0;
}

int hardness_set(struct hardness *hardness, const float *values)
{
	const struct hardness_info *info = &hardness->info;
	const size_t n = n_entry(info);

	memcpy(hardness->values, values, n * sizeof(*values));
	memcpy(hardness->values + n + info->inner, values + n,
		(hardness_n_values(info) - n) * sizeof(*values));
	return hardness->decoder ? vit_decoder_load(hardness->decoder, hardness->values) : 0;
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
	r = hardness_new(&hardness, &info, 1);
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
	vit_decoder_free(TAKE_PTR(hardness->decoder));
	free(TAKE_PTR(hardness->tokens));
	free(TAKE_PTR(hardness->out));
}

void hardness_free(struct hardness *hardness)
{
	if (!hardness)
		return;
	forget_grid(hardness);
	free(hardness->values);
	free(hardness);
}

const struct hardness_info *hardness_info(const struct hardness *hardness)
{
	return &hardness->info;
}

static int build_grid(struct hardness *hardness, uint32_t grid)
{
	const struct hardness_info *info = &hardness->info;
	const size_t n_patches = (size_t)hardness->n_at_once * grid * grid;
	int r;

	hardness->tokens =
		calloc((n_patches + hardness->n_at_once) * info->width, sizeof(*hardness->tokens));
	hardness->out = calloc(n_patches, sizeof(*hardness->out));
	if (!hardness->tokens || !hardness->out)
		return -ENOMEM;
	r = vit_decoder_new(&hardness->decoder,
		&(struct vit_decoder_shape){
			.n_in = info->width,
			.width = info->inner,
			.depth = info->depth,
			.n_heads = info->n_heads,
			.mlp = info->n_mlp,
			.grid = grid,
			.native_grid = info->grid,
			.n_out = 1,
			.n_trunks = 1,
		},
		&(struct vit_decoder_options){
			.batch = hardness->n_at_once,
			.forward_only = true,
		});
	return r < 0 ? r : vit_decoder_load(hardness->decoder, hardness->values);
}

static int set_grid(struct hardness *hardness, uint32_t grid)
{
	int r;

	if (grid == 0 || grid > HARDNESS_MAX_GRID)
		return -EINVAL;
	if (grid == hardness->grid)
		return 0;
	forget_grid(hardness);
	r = build_grid(hardness, grid);
	if (r < 0)
		forget_grid(hardness);
	else
		hardness->grid = grid;
	return r;
}

/* n images, n_at_once at the most. */
static int map_part(struct hardness *hardness, const float *tokens, uint32_t n, float *map)
{
	const size_t n_patches = (size_t)hardness->grid * hardness->grid;
	int r;

	if (n == hardness->n_at_once)
		return vit_decoder_forward(hardness->decoder, tokens, NULL, map);
	memcpy(hardness->tokens, tokens,
		n * (1 + n_patches) * hardness->info.width * sizeof(*tokens));
	r = vit_decoder_forward(hardness->decoder, hardness->tokens, NULL, hardness->out);
	if (r == 0)
		memcpy(map, hardness->out, n * n_patches * sizeof(*map));
	return r;
}

int hardness_map(
	struct hardness *hardness, const float *tokens, uint32_t n, uint32_t grid, float *map)
{
	const size_t n_patches = (size_t)grid * grid;
	int r = set_grid(hardness, grid);

	for (uint32_t i = 0; r == 0 && i < n; i += hardness->n_at_once) {
		const uint32_t left = n - i;

		r = map_part(hardness, tokens + i * (1 + n_patches) * hardness->info.width,
			left < hardness->n_at_once ? left : hardness->n_at_once,
			map + i * n_patches);
	}
	return r;
}
