/* SPDX-License-Identifier: Apache-2.0 */
#include "pretrain.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/blob.h"
#include "model/vit_params.h"
#include "shm_layout.h"

#define DEFAULT_PX 96u
/* What the activations of a step may take; what does not fit goes in parts. */
#define MAX_TAPE_BYTES ((size_t)2 << 30)

/* MICM's class token waits for two thirds of the blocks (algorithms.md 4.2). */
static uint32_t class_block_of(const struct pretrain_options *options)
{
	if (options->has_class_block || options->objective != RECIPE_MICM)
		return options->shape.class_block;
	return options->shape.depth * 2 / 3;
}

static struct prep whole_image(uint32_t px)
{
	return (struct prep){
		.input_px = px,
		.resize = PREP_SQUASH,
		.crop = 1,
		.mean = { .5F, .5F, .5F },
		.std = { .5F, .5F, .5F },
	};
}

static int take_model(struct pretrain *p, const struct pretrain_options *options,
	float **ret_values, struct diag *diag)
{
	_cleanup_(params_freep) struct params *params = NULL;
	_cleanup_(base_freep) struct base *base = NULL;
	_cleanup_(vit_freep) struct vit *vit = NULL;
	_cleanup_(freep) float *values = NULL;
	int r = base_load(&base, options->from, diag);

	if (r == 0)
		r = vit_new(&vit, base, NULL, diag);
	if (r < 0)
		return r;
	p->shape = *vit_shape(vit);
	p->shape.n_classes = 0;
	if (p->shape.width > SHM_MAX_EMBEDDING)
		return diag_set(diag, EINVAL, "%s: a width of %u, and kamend serves at most %u",
			options->from, p->shape.width, SHM_MAX_EMBEDDING);
	p->prep = vit_native_prep(vit);
	if (options->px)
		p->prep.input_px = options->px;
	r = vit_params_new(&params, &p->shape, false);
	if (r < 0)
		return r;
	values = malloc(params->n_values * sizeof(*values));
	if (!values)
		return -ENOMEM;
	r = vit_params_take(params, vit, values);
	if (r < 0)
		return diag_set(diag, -r, "%s: not a model to go on from", options->from);
	*ret_values = TAKE_PTR(values);
	return 0;
}

static int start_model(struct pretrain *p, const struct pretrain_options *options,
	float **ret_values, struct diag *diag)
{
	_cleanup_(params_freep) struct params *params = NULL;
	const uint32_t px = options->px ? options->px : DEFAULT_PX;
	const bool is_swav = options->objective == RECIPE_SWAV;
	float *values;
	int r;

	/* HPM's, as MAE's, are given (algorithms.md 2.2). */
	p->fixed_positions = options->objective == RECIPE_HPM && options->shape.width % 4 == 0;
	p->shape = options->shape;
	p->shape.class_block = class_block_of(options);
	p->shape.grid = px / p->shape.patch;
	p->prep = whole_image(px);
	if (p->shape.grid == 0 || px % p->shape.patch)
		return diag_set(
			diag, EINVAL, "%u pixels are not whole patches of %u", px, p->shape.patch);
	r = vit_params_new(&params, &p->shape, p->fixed_positions);
	if (r < 0)
		return diag_set(diag, -r, "no model has this shape");
	values = malloc(params->n_values * sizeof(*values));
	if (!values)
		return -ENOMEM;
	vit_params_start(params, &p->shape, values,
		is_swav || options->objective == RECIPE_MICM ? VIT_START_NORMAL : VIT_START_XAVIER,
		options->seed);
	*ret_values = values;
	return 0;
}

static int make_model(struct pretrain *p, const struct pretrain_options *options, struct diag *diag)
{
	_cleanup_(freep) float *values = NULL;
	int r = options->from ? take_model(p, options, &values, diag)
			      : start_model(p, options, &values, diag);

	return r < 0 ? r : vit_over(&p->vit, &p->shape, p->fixed_positions, values, diag);
}

static int make_recipe(
	struct pretrain *p, const struct pretrain_options *options, struct diag *diag)
{
	struct recipe *recipe = &p->recipe;
	int r;

	*recipe = recipe_for(p->vit, &p->prep, p->folder->n, options->objective, options->steps);
	recipe_set_weights(recipe);
	recipe->seed = options->seed;
	recipe->large_px = p->prep.input_px;
	if (options->batch)
		recipe->batch = options->batch;
	r = recipe_read(recipe, options->recipe, diag);
	if (r == 0 && recipe->objective != options->objective)
		r = diag_set(diag, EINVAL, "recipe: objective is what --objective says");
	if (r == 0)
		recipe_fit(recipe, p->vit, MAX_TAPE_BYTES);
	return r;
}

int pretrain_init(struct pretrain *p, const struct pretrain_options *options, struct diag *diag)
{
	struct image_source source;
	int r = make_model(p, options, diag);

	if (r < 0)
		return r;
	r = folder_open(&p->folder, options->folder, options->part, 2 * p->prep.input_px, diag);
	if (r == 0)
		r = make_recipe(p, options, diag);
	if (r < 0)
		return r;
	source = folder_source(p->folder);
	return round_new(&p->round, p->vit, &p->recipe, &p->prep, &source, diag);
}

void pretrain_done(struct pretrain *p)
{
	round_free(p->round);
	vit_free(p->vit);
	folder_free(p->folder);
}

int pretrain_write(const struct pretrain *p, const char *path, bool teacher, size_t *ret_n_bytes)
{
	_cleanup_(freep) void *data = NULL;
	size_t n_bytes;
	int r;

	r = vit_params_encode(vit_params(p->vit), &p->shape, round_weights(p->round, teacher),
		&p->prep, &data, &n_bytes);
	if (r == 0)
		r = blob_write(AT_FDCWD, path, data, n_bytes);
	if (r == 0)
		*ret_n_bytes = n_bytes;
	return r;
}
