/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "learn/adamw.h"
#include "learn/hpm_objective.h"
#include "learn/hpm_step.h"
#include "learn/optimiser.h"
#include "learn/patch_loss.h"
#include "learn/patch_mask.h"
#include "learn/plot.h"
#include "learn/streams.h"

/* Width of a head of the decoders. */
#define HEAD_WIDTH 32u
/* Of the steps, as 40 of 400 epochs. */
#define WARM_UP .1f
/* The teacher's window is ten times shorter in the first eighth: .999 before .9999. */
#define SHORTER 10.f
#define FIRST_SHARE .125f

enum { TEACHER, STUDENT };

static struct hpm *hpm_of(struct objective *objective)
{
	return (struct hpm *)objective;
}

static uint32_t hpm_branches(
	const struct recipe *recipe, const struct vit_shape *shape, struct branch *branches)
{
	const uint32_t grid = recipe->large_px / shape->patch;

	branches[TEACHER] = (struct branch){
		.network = BRANCH_TEACHER,
		.n_views = 1,
		.tokens = BRANCH_ALL,
		.all_out = true,
	};
	branches[STUDENT] = (struct branch){
		.network = BRANCH_STUDENT,
		.n_views = 1,
		.tokens = BRANCH_KEPT,
		.n_kept = patch_mask_n_kept(grid * grid, recipe->hpm_ratio),
		.all_out = true,
	};
	return 2;
}

static void hpm_free(struct objective *objective)
{
	struct hpm *hpm = hpm_of(objective);

	vit_decoder_free(hpm->decoder);
	vit_decoder_free(hpm->whole);
	hardness_free(hpm->hardness);
	arena_free(hpm->arena);
	free(hpm->order);
	free(hpm->kept);
	free(hpm);
}

static void set_shape(struct hpm *hpm, const struct recipe *recipe, const struct vit_shape *shape)
{
	const uint32_t grid = recipe->large_px / shape->patch;

	hpm->recipe = *recipe;
	hpm->shape = (struct vit_decoder_shape){
		.n_in = shape->width,
		.width = recipe->hpm_width,
		.depth = recipe->hpm_depth,
		.n_heads = recipe->hpm_width / HEAD_WIDTH,
		.mlp = 4 * recipe->hpm_width,
		.grid = grid,
		.n_out = recipe->hpm_target == RECIPE_HPM_FEATURES
				 ? shape->width
				 : 3 * shape->patch * shape->patch,
		.n_trunks = 2,
	};
	hpm->n_patches = grid * grid;
	hpm->n_kept = patch_mask_n_kept(hpm->n_patches, recipe->hpm_ratio);
	hpm->n_hidden = hpm->n_patches - hpm->n_kept;
	hpm->n_part = recipe->batch < HPM_PART ? recipe->batch : HPM_PART;
}

static struct hardness_info info_of(const struct hpm *hpm)
{
	return (struct hardness_info){
		.base = *vit_digest(hpm->vit),
		.width = hpm->shape.n_in,
		.grid = hpm->shape.grid,
		.inner = hpm->shape.width,
		.depth = hpm->shape.depth,
		.n_heads = hpm->shape.n_heads,
		.n_mlp = hpm->shape.mlp,
	};
}

/* Each trunk is asked once: that of ranks of whole images where hpm_asked says so. */
static struct vit_decoder_options decoder_options(const struct hpm *hpm)
{
	const bool is_whole = hpm->recipe.hpm_asked == RECIPE_HPM_WHOLE;

	return (struct vit_decoder_options){
		.batch = hpm->n_part,
		.n_kept = hpm->n_kept,
		.precision = hpm->recipe.precision,
		.trunks = is_whole ? 1u << HPM_PIXELS : 0,
	};
}

static struct vit_decoder_options whole_options(const struct hpm *hpm)
{
	return (struct vit_decoder_options){
		.batch = hpm->n_part,
		.precision = hpm->recipe.precision,
		.trunks = 1u << HPM_RANKS,
	};
}

static int build(struct hpm *hpm)
{
	const struct hardness_info info = info_of(hpm);
	const struct vit_decoder_options options = decoder_options(hpm), whole = whole_options(hpm);
	int r;

	r = vit_decoder_new(&hpm->decoder, &hpm->shape, &options);
	if (r < 0)
		return r;
	hpm->params = vit_decoder_params(hpm->decoder);
	if (hpm->recipe.hpm_asked == RECIPE_HPM_WHOLE)
		r = vit_decoder_new(&hpm->whole, &hpm->shape, &whole);
	return r < 0 ? r : hardness_new(&hpm->hardness, &info, hpm->n_part);
}

enum { N_PLOTS = 14 };

static void fill_plots(struct hpm *hpm, struct plot *plots)
{
	const struct hardness_info info = info_of(hpm);
	const size_t batch = hpm->recipe.batch, n_part = hpm->n_part;
	const size_t n_tokens = n_part * (1 + hpm->n_kept) * hpm->shape.n_in;
	const size_t n_out = n_part * hpm->n_patches * hpm->shape.n_out;
	const size_t n_hidden = n_part * hpm->n_hidden, n_rows = n_hidden * hpm->shape.n_out;
	const struct plot all[N_PLOTS] = {
		{ &hpm->grad, hpm->params->n_values },
		{ &hpm->exported, hardness_n_values(&info) },
		{ &hpm->map, batch * hpm->n_patches },
		{ &hpm->tokens, n_tokens },
		{ &hpm->d_tokens, n_tokens },
		{ &hpm->out, 2 * n_out },
		{ &hpm->d_out, 2 * n_out },
		{ &hpm->target, n_out },
		{ &hpm->rows, n_rows },
		{ &hpm->wanted, n_rows },
		{ &hpm->d_rows, n_rows },
		{ &hpm->losses, n_hidden },
		{ &hpm->predicted, n_hidden },
		{ &hpm->d_predicted, n_hidden },
	};

	memcpy(plots, all, sizeof(all));
}

static int allocate(struct hpm *hpm)
{
	struct plot plots[N_PLOTS];

	hpm->order = calloc((size_t)hpm->recipe.batch * hpm->n_patches, sizeof(*hpm->order));
	hpm->kept = calloc((size_t)hpm->n_part * hpm->n_kept, sizeof(*hpm->kept));
	if (!hpm->order || !hpm->kept)
		return -ENOMEM;
	fill_plots(hpm, plots);
	return plot_lay_out(&hpm->arena, plots, N_PLOTS);
}

static size_t hpm_bytes(const struct recipe *recipe, const struct vit *vit)
{
	_cleanup_(params_freep) struct params *params = NULL;
	struct hpm hpm = { .vit = (struct vit *)vit };
	struct vit_decoder_options options;
	struct plot plots[N_PLOTS];
	size_t n_bytes;

	set_shape(&hpm, recipe, vit_shape(vit));
	if (vit_decoder_params_new(&params, &hpm.shape) < 0)
		return 0;
	hpm.params = params;
	options = decoder_options(&hpm);
	n_bytes = vit_decoder_bytes(&hpm.shape, &options);
	options = whole_options(&hpm);
	if (recipe->hpm_asked == RECIPE_HPM_WHOLE)
		n_bytes += vit_decoder_bytes(&hpm.shape, &options);
	fill_plots(&hpm, plots);
	return n_bytes + plot_bytes(plots, N_PLOTS);
}

static int hpm_make(struct objective **ret_objective, const struct objective_setup *setup)
{
	struct hpm *hpm = calloc(1, sizeof(*hpm));
	int r;

	if (!hpm)
		return -ENOMEM;
	hpm->vit = setup->vit;
	set_shape(hpm, setup->recipe, vit_shape(setup->vit));
	r = build(hpm);
	if (r == 0)
		r = allocate(hpm);
	if (r < 0) {
		hpm_free(&hpm->base);
		return r;
	}
	hpm->base.n_state = 4 * hpm->params->n_values;
	/* Of the reconstruction a step tells a share of its own guess. */
	hpm->base.scale = 1 + (hpm->recipe.hpm_ranks == RECIPE_HPM_RELATIVE
					      ? patch_rank_guess()
					      : patch_score_guess(hpm->n_hidden));
	*ret_objective = &hpm->base;
	return 0;
}

static void hpm_map(struct objective *objective, float *state)
{
	struct hpm *hpm = hpm_of(objective);
	const size_t n = hpm->params->n_values;

	hpm->values = state;
	hpm->first = state + n;
	hpm->second = state + 2 * n;
	hpm->teacher = state + 3 * n;
}

static int hpm_start(struct objective *objective, const float *features, uint32_t n)
{
	struct hpm *hpm = hpm_of(objective);

	(void)features;
	(void)n;
	vit_decoder_start(hpm->params, hpm->values, hpm->recipe.seed);
	memcpy(hpm->teacher, hpm->values, hpm->params->n_values * sizeof(*hpm->values));
	return 0;
}

static size_t offset_of(const struct hpm *hpm, const char *name)
{
	return params_find(hpm->params, name)->offset;
}

/* The ranks' trunk; the mean of its outputs is an exit of one output. */
static void export_teacher(const struct hpm *hpm)
{
	const struct vit_decoder_shape *shape = &hpm->shape;
	const size_t n_entry = (size_t)shape->width * shape->n_in + shape->width;
	const size_t trunk = offset_of(hpm, "trunk1.blocks.0.attn.qkv.weight");
	const size_t exit = offset_of(hpm, "exit1.weight");
	const float *weight = hpm->teacher + exit;
	const float *bias = hpm->teacher + offset_of(hpm, "exit1.bias");
	float *dst = hpm->exported;

	memcpy(dst, hpm->teacher + offset_of(hpm, "entry.weight"), n_entry * sizeof(*dst));
	dst += n_entry;
	memcpy(dst, hpm->teacher + trunk, (exit - trunk) * sizeof(*dst));
	dst += exit - trunk;
	memset(dst, 0, (shape->width + 1) * sizeof(*dst));
	for (uint32_t o = 0; o < shape->n_out; o++) {
		for (uint32_t d = 0; d < shape->width; d++)
			dst[d] += weight[(size_t)o * shape->width + d] / (float)shape->n_out;
		dst[shape->width] += bias[o] / (float)shape->n_out;
	}
}

static int look_at_whole(struct hpm *hpm, const struct objective_rows *teacher)
{
	int r;

	export_teacher(hpm);
	r = hardness_set(hpm->hardness, hpm->exported);
	return r < 0 ? r
		     : hardness_map(hpm->hardness, teacher->out, teacher->n_rows, hpm->shape.grid,
			       hpm->map);
}

static int hpm_choose(struct objective *objective, struct objective_batch *batch)
{
	struct hpm *hpm = hpm_of(objective);
	const struct recipe *recipe = &hpm->recipe;
	struct objective_rows *student = &batch->branches[STUDENT];
	const struct patch_mask mask = {
		.n_patches = hpm->n_patches,
		.n_kept = hpm->n_kept,
		.n_hard = patch_mask_n_hard(
			hpm->n_hidden, patch_mask_share(recipe->hpm_hard_from, recipe->hpm_hard_to,
					       batch->step, recipe->steps)),
	};
	int r = mask.n_hard > 0 ? look_at_whole(hpm, &batch->branches[TEACHER]) : 0;

	if (r < 0)
		return r;
	for (uint32_t i = 0; i < student->n_rows; i++) {
		struct rng rng = rng_stream(recipe->seed, batch->step,
			batch->images[i % recipe->batch], STREAM_PATCHES);
		uint32_t *order = hpm->order + (size_t)i * hpm->n_patches;

		patch_mask_choose(&mask, hpm->map + (size_t)i * hpm->n_patches, &rng, order);
		memcpy(student->kept + (size_t)i * hpm->n_kept, order,
			hpm->n_kept * sizeof(*order));
	}
	return 0;
}

static const char *const figures[] = { "reconstruction", "ranking", "pairs", NULL };

static int hpm_loss(
	struct objective *objective, const struct objective_batch *batch, double *ret_loss)
{
	struct hpm *hpm = hpm_of(objective);
	struct hpm_cost cost = { 0 };
	int r;

	r = vit_decoder_load(hpm->decoder, hpm->values);
	if (r == 0 && hpm->whole)
		r = vit_decoder_load(hpm->whole, hpm->values);
	if (r < 0)
		return r;
	memset(hpm->grad, 0, hpm->params->n_values * sizeof(*hpm->grad));
	for (uint32_t i = 0; i < hpm->recipe.batch; i += hpm->n_part) {
		r = hpm_step_part(
			hpm, &batch->branches[TEACHER], &batch->branches[STUDENT], i, &cost);
		if (r < 0)
			return r;
	}
	batch->figures[0] = (float)cost.reconstruction;
	batch->figures[1] = (float)cost.ranking;
	batch->figures[2] = (float)cost.pairs;
	*ret_loss = cost.reconstruction / cost.guess + cost.ranking;
	return 0;
}

static float hpm_teacher_decay(const struct objective *objective, uint32_t step)
{
	const struct recipe *recipe = &((const struct hpm *)objective)->recipe;
	const float first = fmaxf(1 - SHORTER * (1 - recipe->hpm_ema), 0);
	const float done = (float)step / (FIRST_SHARE * (float)recipe->steps);

	return first + (recipe->hpm_ema - first) * fminf(done, 1);
}

static void hpm_update(struct objective *objective, const struct objective_batch *batch)
{
	struct hpm *hpm = hpm_of(objective);
	const struct recipe *recipe = &hpm->recipe;
	const struct adamw adamw = {
		.beta1 = .9,
		.beta2 = .95,
		.eps = 1e-8,
		.lr = schedule_warm(recipe->hpm_lr, batch->step, recipe->steps,
			(uint32_t)(WARM_UP * (float)recipe->steps)),
		.decay = recipe->hpm_decay,
		.step = batch->step + 1,
	};

	adamw_step(&adamw, hpm->params, hpm->values, hpm->first, hpm->second, hpm->grad);
	ema_move(hpm->teacher, hpm->values, hpm->params->n_values,
		hpm_teacher_decay(objective, batch->step));
}

static int hpm_hardness(const struct objective *objective, const struct digest *mask,
	void **ret_data, size_t *ret_n_bytes)
{
	const struct hpm *hpm = (const struct hpm *)objective;
	struct hardness_info info = info_of(hpm);

	info.mask = *mask;
	export_teacher(hpm);
	return hardness_encode(&info, hpm->exported, ret_data, ret_n_bytes);
}

const struct objective_kind objective_hpm = {
	.name = "hpm",
	.figures = figures,
	.branches = hpm_branches,
	.bytes = hpm_bytes,
	.make = hpm_make,
	.free = hpm_free,
	.map = hpm_map,
	.start = hpm_start,
	.choose = hpm_choose,
	.loss = hpm_loss,
	.update = hpm_update,
	.teacher_decay = hpm_teacher_decay,
	.hardness = hpm_hardness,
};
