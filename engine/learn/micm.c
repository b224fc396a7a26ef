/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "learn/adamw.h"
#include "learn/micm.h"
#include "learn/optimiser.h"

/* What the authors end at, of what they begin with. */
#define LAST_RATE .02f
#define LAST_WEIGHT_DECAY 10
#define MAX_GRADIENT 3
#define N_PLOTS 10

static const char *const figures[] = {
	[MICM_FIGURE_CLASS] = "class",
	[MICM_FIGURE_PATCH] = "patch",
	[MICM_FIGURE_PIXEL] = "pixel",
	[MICM_FIGURE_PSEUDO] = "pseudo",
	[MICM_FIGURE_MASKED] = "masked",
	[MICM_FIGURE_ENTROPY] = "entropy",
	[MICM_N_FIGURES] = NULL,
};

bool micm_is_second(const struct recipe *recipe, uint32_t step)
{
	return step >=
	       recipe->steps - (uint32_t)lroundf(recipe->micm_second * (float)recipe->steps);
}

float micm_temperature(const struct recipe *recipe, uint32_t step)
{
	uint32_t n = (uint32_t)lroundf(recipe->micm_rise * (float)recipe->steps);
	float share = step < n ? (float)step / (float)n : 1;

	return recipe->micm_first_temperature +
	       share * (recipe->micm_last_temperature - recipe->micm_first_temperature);
}

static float micm_teacher_decay(const struct objective *objective, uint32_t step)
{
	const struct recipe *recipe = &((const struct micm *)objective)->recipe;

	return schedule_between(recipe->micm_teacher, 1, step, recipe->steps);
}

static bool micm_wants_small(const struct objective *objective, uint32_t step)
{
	return !micm_is_second(&((const struct micm *)objective)->recipe, step);
}

static uint32_t micm_branches(
	const struct recipe *recipe, const struct vit_shape *shape, struct branch *branches)
{
	(void)shape;
	branches[MICM_LARGE] = (struct branch){
		.network = BRANCH_STUDENT,
		.n_views = MICM_TARGETS,
		.tokens = BRANCH_REPLACED,
		.all_out = true,
		.wants_entry = true,
	};
	branches[MICM_TEACHER] = (struct branch){
		.network = BRANCH_TEACHER,
		.n_views = MICM_TARGETS,
		.all_out = true,
	};
	if (recipe->n_small == 0)
		return MICM_SMALL;
	branches[MICM_SMALL] = (struct branch){
		.network = BRANCH_STUDENT,
		.is_small = true,
		.n_views = recipe->n_small,
	};
	return MICM_SMALL + 1;
}

static void micm_free(struct objective *objective)
{
	struct micm *micm = micm_of(objective);

	dense_free(micm->telling);
	micm_head_free(micm->head);
	params_free(micm->params);
	arena_free(micm->arena);
	free(micm->nearest);
	free(micm->patches);
	free(micm->samples);
	free(micm);
}

/* Of params, which need not be there. */
static size_t n_values(const struct micm *micm)
{
	return micm_telling_at(micm) + (size_t)micm->n_pixels * (micm->width + 1);
}

/* In the order of struct micm_head_values, then mask token and telling layer. */
static int list_values(struct micm *micm)
{
	const struct micm_head_shape *shape = &micm->head_shape;
	const uint64_t v[] = { shape->n_outputs, shape->dim };
	int r = params_new(&micm->params);

	if (r == 0)
		r = params_add_linear(micm->params, "head.1", shape->hidden, shape->width);
	if (r == 0)
		r = params_add_linear(micm->params, "head.2", shape->hidden, shape->hidden);
	if (r == 0)
		r = params_add_linear(micm->params, "head.3", shape->dim, shape->hidden);
	if (r == 0)
		r = params_add(micm->params, "head.last", 2, v);
	if (r == 0)
		r = params_add(micm->params, "head.gain", 1, v);
	if (r == 0)
		r = params_add(micm->params, "mask_token", 1, &(uint64_t){ micm->width });
	if (r == 0)
		r = params_add_linear(micm->params, "telling", micm->n_pixels, micm->width);
	return r;
}

static void fill_plots(struct micm *micm, struct plot *plots)
{
	const size_t k = micm->head_shape.n_outputs;
	const size_t n_classes = (size_t)MICM_TARGETS * micm->recipe.batch;
	const struct plot all[N_PLOTS] = {
		{ &micm->grad, n_values(micm) },
		{ &micm->raw, n_classes * k },
		{ &micm->t, n_classes * k },
		{ &micm->patch_t, micm->max_masked * k },
		{ &micm->class_sum, k },
		{ &micm->patch_sum, k },
		{ &micm->x, (size_t)MICM_ROWS * micm->width },
		{ &micm->d_x, (size_t)MICM_ROWS * micm->width },
		{ &micm->told, (size_t)MICM_ROWS * micm->n_pixels },
		{ &micm->wanted, (size_t)MICM_ROWS * micm->n_pixels },
	};

	memcpy(plots, all, sizeof(all));
}

static int allocate(struct micm *micm)
{
	const size_t n_classes = (size_t)MICM_TARGETS * micm->recipe.batch;
	struct plot plots[N_PLOTS];

	micm->samples = calloc(micm->max_masked + 1, sizeof(*micm->samples));
	micm->patches = calloc(micm->max_masked + 1, sizeof(*micm->patches));
	micm->nearest = calloc(n_classes, sizeof(*micm->nearest));
	if (!micm->samples || !micm->patches || !micm->nearest)
		return -ENOMEM;
	fill_plots(micm, plots);
	return plot_lay_out(&micm->arena, plots, N_PLOTS);
}

static void set_sizes(struct micm *micm, const struct recipe *recipe, const struct vit *vit)
{
	const struct vit_shape *shape = vit_shape(vit);

	micm->recipe = *recipe;
	micm->width = shape->width;
	micm->patch = shape->patch;
	micm->grey = vit_patch_bias(vit);
	micm->grid = recipe->large_px / shape->patch;
	micm->n_tokens = 1 + micm->grid * micm->grid;
	micm->n_views = MICM_TARGETS + recipe->n_small;
	micm->n_pixels = 3 * shape->patch * shape->patch;
	micm->max_masked = MICM_TARGETS * recipe->batch *
			   (uint32_t)(recipe->micm_mask * (float)(micm->n_tokens - 1));
	micm->head_shape = (struct micm_head_shape){ shape->width, recipe->micm_hidden,
		recipe->head_dim, recipe->n_prototypes };
	micm->n_head = micm_head_size(&micm->head_shape);
}

/* Of the head, at most. */
static uint32_t n_rows(const struct micm *micm)
{
	return micm->n_views * micm->recipe.batch + micm->max_masked;
}

static size_t micm_bytes(const struct recipe *recipe, const struct vit *vit)
{
	struct micm micm = { .n_views = 0 };
	struct plot plots[N_PLOTS];

	set_sizes(&micm, recipe, vit);
	fill_plots(&micm, plots);
	return plot_bytes(plots, N_PLOTS) + micm_head_bytes(&micm.head_shape, n_rows(&micm));
}

static int build(struct micm *micm, struct vit *vit)
{
	int r = list_values(micm);

	if (r == 0)
		r = allocate(micm);
	if (r == 0)
		r = micm_head_new(&micm->head, vit, &micm->head_shape, n_rows(micm));
	if (r < 0)
		return r;
	return dense_new(&micm->telling, vit,
		&(struct dense_shape){
			.n_rows = MICM_ROWS,
			.n_out = micm->n_pixels,
			.n_in = micm->width,
		});
}

static int micm_make(struct objective **ret_objective, const struct objective_setup *setup)
{
	struct micm *micm = calloc(1, sizeof(*micm));
	int r;

	if (!micm)
		return -ENOMEM;
	set_sizes(micm, setup->recipe, setup->vit);
	r = build(micm, setup->vit);
	if (r < 0) {
		micm_free(&micm->base);
		return r;
	}
	micm->base.n_state =
		3 * micm->params->n_values + micm->n_head + 2 * (size_t)micm->head_shape.n_outputs;
	micm->base.scale = 1;
	*ret_objective = &micm->base;
	return 0;
}

static void micm_map(struct objective *objective, float *state)
{
	struct micm *micm = micm_of(objective);
	size_t n = micm->params->n_values;

	micm->values = state;
	micm->first = micm->values + n;
	micm->second = micm->first + n;
	micm->teacher = micm->second + n;
	micm->centre = micm->teacher + micm->n_head;
	micm->patch_centre = micm->centre + micm->head_shape.n_outputs;
}

/* The authors' mask token begins at 0, and theirs is a network that has seen nothing else. One that has
 * learnt from images knows a patch of mean colour, but no patch without an embedding. What tells
 * pixels begins at 0: an error at random, which is larger than that of saying nothing, has every step
 * drive the network the same way to make it less, and 2 % of the bits flipped where .1 % should. */
static int micm_start(struct objective *objective, const float *features, uint32_t n)
{
	struct micm *micm = micm_of(objective);
	const struct recipe *recipe = &micm->recipe;
	int r = 0;

	micm_head_draw(&micm->head_shape, micm->values, recipe->seed);
	memcpy(micm->values + micm_mask_token_at(micm), micm->grey,
		micm->width * sizeof(*micm->grey));
	if (recipe->micm_warm)
		r = micm_head_warm(&micm->head_shape, micm->values, features, n, recipe->seed);
	memcpy(micm->teacher, micm->values, micm->n_head * sizeof(*micm->teacher));
	return r;
}

static void micm_update(struct objective *objective, const struct objective_batch *batch)
{
	struct micm *micm = micm_of(objective);
	const struct recipe *recipe = &micm->recipe;
	const uint32_t k = micm->head_shape.n_outputs, n = MICM_TARGETS * recipe->batch;
	const struct adamw adamw = {
		.beta1 = .9,
		.beta2 = .999,
		.eps = 1e-8,
		.lr = schedule_warm_to(recipe->micm_lr, LAST_RATE * recipe->micm_lr, batch->step,
			recipe->steps, recipe_warm_steps(recipe)),
		.decay = schedule_between(recipe->micm_weight_decay,
			LAST_WEIGHT_DECAY * recipe->micm_weight_decay, batch->step, recipe->steps),
		.step = batch->step + 1,
	};

	micm_mask_token_backward(micm, &batch->branches[MICM_LARGE]);
	(void)adamw_clip(micm->params, micm->grad, MAX_GRADIENT);
	adamw_step(&adamw, micm->params, micm->values, micm->first, micm->second, micm->grad);
	ema_move(micm->teacher, micm->values, micm->n_head,
		micm_teacher_decay(objective, batch->step));
	if (recipe->micm_balance)
		return;
	micm_move_centre(micm->centre, micm->class_sum, n, k);
	micm_move_centre(micm->patch_centre, micm->patch_sum, n * (micm->n_tokens - 1), k);
}

const struct objective_kind objective_micm = {
	.name = "micm",
	.wants_features = true,
	.figures = figures,
	.branches = micm_branches,
	.bytes = micm_bytes,
	.make = micm_make,
	.free = micm_free,
	.map = micm_map,
	.start = micm_start,
	.wants_small = micm_wants_small,
	.choose = micm_choose,
	.loss = micm_step_loss,
	.update = micm_update,
	.teacher_decay = micm_teacher_decay,
};
