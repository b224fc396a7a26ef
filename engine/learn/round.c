/* SPDX-License-Identifier: Apache-2.0 */
#include <endian.h>
#include <errno.h>
#include <math.h>
#include <string.h>

#include "learn/judge.h"
#include "learn/round_state.h"
#include "learn/streams.h"
#include "learn/warm.h"
#include "model/vit_params.h"

#define MIN_LOSSES 5u

static uint32_t n_rows(const struct round *round, uint32_t b)
{
	return round->objective->branches[b].n_views * round->recipe.batch;
}

static size_t n_pixels(const struct round *round, bool small)
{
	const size_t px = small ? round->recipe.small_px : round->recipe.large_px;

	return 3 * px * px;
}

/* Values of all views of a size. */
static size_t n_views_pixels(const struct round *round, bool small)
{
	const struct objective *objective = round->objective;

	return objective_n_views(objective->branches, objective->n_branches, small) *
	       round->recipe.batch * n_pixels(round, small);
}

/* What a way back gives: of a model that is learnt, of more than the maskable tensors. */
static size_t n_gradients(const struct round *round)
{
	const struct params *params = vit_params(round->vit);

	return params ? params->n_values : vit_layout(round->vit)->n_elements;
}

/* state is one run of floats, so that a checkpoint is one write. */
static void map_state(struct round *round)
{
	float *p = round->drive->map(round, round->state);

	round->objective->kind->map(round->objective, p);
	round->losses = p + round->objective->n_state;
	round->figures = round->losses + round->n_losses;
}

/* A branch's size; its arrays are there only after the plots are laid out. */
static struct objective_rows rows_of(const struct round *round, uint32_t b)
{
	const struct branch *branch = &round->objective->branches[b];
	const struct recipe *recipe = &round->recipe;
	uint32_t grid = (branch->is_small ? recipe->small_px : recipe->large_px) /
			vit_shape(round->vit)->patch;

	return (struct objective_rows){
		.n_rows = n_rows(round, b),
		.n_patches = grid * grid,
		.n_tokens = 1 + (branch->tokens == BRANCH_KEPT ? branch->n_kept : grid * grid),
	};
}

static bool is_class_student(const struct branch *branch)
{
	return branch->network == BRANCH_STUDENT && !branch->all_out;
}

/* Rows of the students of which the class token alone leaves. */
static size_t n_class_rows(const struct round *round)
{
	size_t n = 0;

	for (uint32_t b = 0; b < round->objective->n_branches; b++)
		if (is_class_student(&round->objective->branches[b]))
			n += n_rows(round, b);
	return n;
}

/* All floats of a step, but for the branches' own. */
enum { PLOT_STATE, PLOT_GRAD, PLOT_LARGE, PLOT_SMALL, PLOT_FIGURES, PLOT_F, PLOT_D_F, N_PLOTS };
enum { N_BRANCH_PLOTS = 3 };

static uint32_t plot_branches(struct round *round, struct plot *plots)
{
	const size_t width = vit_shape(round->vit)->width;
	uint32_t n = 0;

	for (uint32_t b = 0; b < round->objective->n_branches; b++) {
		const struct branch *branch = &round->objective->branches[b];
		struct objective_rows *rows = &round->passed.branches[b];
		size_t n_entry, n_out;

		*rows = rows_of(round, b);
		n_entry = (size_t)rows->n_rows * rows->n_tokens * width;
		n_out = branch->all_out ? n_entry : rows->n_rows * width;
		if (!is_class_student(branch))
			plots[n++] = (struct plot){ &round->outputs[b], n_out };
		if (branch->network == BRANCH_STUDENT && branch->all_out)
			plots[n++] = (struct plot){ &rows->d_out, n_out };
		if (branch->wants_entry)
			plots[n++] = (struct plot){ &round->d_entry[b], n_entry };
	}
	return n;
}

/* What each branch reads and writes of it. */
static void set_rows(struct round *round, float *f, float *d_f)
{
	const size_t width = vit_shape(round->vit)->width;

	for (uint32_t b = 0; b < round->objective->n_branches; b++) {
		const struct branch *branch = &round->objective->branches[b];
		struct objective_rows *rows = &round->passed.branches[b];

		if (is_class_student(branch)) {
			round->outputs[b] = f;
			rows->d_out = d_f;
			f += rows->n_rows * width;
			d_f += rows->n_rows * width;
		}
		rows->out = round->outputs[b];
		rows->d_entry = round->d_entry[b];
		rows->pixels = (branch->is_small ? round->small : round->large) +
			       (size_t)branch->first_view * round->recipe.batch *
				       n_pixels(round, branch->is_small);
	}
}

static int allocate(struct round *round)
{
	const struct recipe *recipe = &round->recipe;
	const size_t n_f = n_class_rows(round) * vit_shape(round->vit)->width;
	struct plot plots[N_PLOTS + N_BRANCH_PLOTS * BRANCHES_MAX];
	float *f, *d_f;
	int r;

	round->n_figures = objective_n_figures(round->objective->kind);
	round->n_losses = recipe->steps / 10 > MIN_LOSSES ? recipe->steps / 10 : MIN_LOSSES;
	round->n_state = round->drive->n_state(round) + round->objective->n_state +
			 (size_t)round->n_losses * (1 + round->n_figures);
	round->images = calloc(recipe->batch, sizeof(*round->images));
	if (!round->images)
		return -ENOMEM;
	plots[PLOT_STATE] = (struct plot){ &round->state, round->n_state };
	plots[PLOT_GRAD] = (struct plot){ &round->grad, n_gradients(round) };
	plots[PLOT_LARGE] = (struct plot){ &round->large, n_views_pixels(round, false) };
	plots[PLOT_SMALL] = (struct plot){ &round->small, n_views_pixels(round, true) };
	plots[PLOT_FIGURES] = (struct plot){ &round->passed.figures, round->n_figures };
	plots[PLOT_F] = (struct plot){ &f, n_f };
	plots[PLOT_D_F] = (struct plot){ &d_f, n_f };
	r = plot_lay_out(&round->arena, plots, N_PLOTS + plot_branches(round, plots + N_PLOTS));
	if (r < 0)
		return r;
	round->passed.images = round->images;
	set_rows(round, f, d_f);
	map_state(round);
	return 0;
}

static int build_pass(struct round *round, uint32_t b)
{
	const struct branch *branch = &round->objective->branches[b];
	const struct recipe *recipe = &round->recipe;
	struct objective_rows *rows = &round->passed.branches[b];
	struct pass_options options = objective_pass(recipe, branch);
	int r;

	options.pixels = rows->pixels;
	r = pass_new(&round->passes[b],
		branch->network == BRANCH_TEACHER ? round->teacher_vit : round->vit, rows->n_rows,
		branch->n_views * recipe->at_once, &options);
	if (r < 0)
		return r;
	rows->kept = pass_kept(round->passes[b]);
	rows->replaced = pass_replaced(round->passes[b]);
	return 0;
}

static int build(struct round *round)
{
	const struct objective *objective = round->objective;
	struct recipe recipe = round->recipe;
	int r = 0;

	for (uint32_t b = 0; r == 0 && b < objective->n_branches; b++)
		r = build_pass(round, b);
	if (r < 0)
		return r;
	recipe.n_small = objective_n_views(objective->branches, objective->n_branches, true);
	return views_new(&round->views, &recipe,
		objective_n_views(objective->branches, objective->n_branches, false), &round->prep,
		&round->source);
}

/* Where labels count, a round over others is another round. */
static void add_labels(struct image_source *source)
{
	struct digest_state state;

	digest_init(&state);
	digest_update(&state, source->manifest.bytes, sizeof(source->manifest.bytes));
	for (uint32_t i = 0; i < source->n; i++) {
		uint32_t label = htole32(source->labels[i]);

		digest_update(&state, &label, sizeof(label));
	}
	source->manifest = digest_final(&state);
}

int round_new(struct round **ret_round, struct vit *vit, const struct recipe *recipe,
	const struct prep *prep, const struct image_source *source, struct diag *diag)
{
	return round_new_of(ret_round, NULL, vit, recipe, prep, source, diag);
}

int round_new_of(struct round **ret_round, const struct objective_kind *kind, struct vit *vit,
	const struct recipe *recipe, const struct prep *prep, const struct image_source *source,
	struct diag *diag)
{
	_cleanup_(round_freep) struct round *round = NULL;
	int r;

	r = recipe_check(recipe, vit, source->n, diag);
	if (r < 0)
		return r;
	round = calloc(1, sizeof(*round));
	if (!round)
		return -ENOMEM;
	round->vit = vit;
	round->recipe = *recipe;
	round->source = *source;
	round->prep = *prep;
	round->prep.input_px = recipe->large_px;
	r = prep_check(&round->prep, vit_shape(vit)->patch, diag);
	if (r < 0)
		return r;
	if (!kind)
		kind = objective_kind(recipe->objective);
	if (kind->wants_labels && round->source.labels)
		add_labels(&round->source);
	r = objective_new_of(&round->objective, kind,
		&(struct objective_setup){ &round->recipe, &round->source, vit }, diag);
	if (r < 0)
		return r;
	round->drive = recipe->drive == RECIPE_WEIGHTS ? &drive_weights : &drive_scores;
	round->has_teacher =
		objective_has_teacher(round->objective->branches, round->objective->n_branches);
	r = allocate(round);
	if (r == 0)
		r = round->drive->make(round);
	if (r < 0)
		return diag_set(diag, -r, "round: cannot start: %s", strerror(-r));
	r = build(round);
	if (r < 0)
		return diag_set(diag, -r, "round: cannot build the network: %s", strerror(-r));
	*ret_round = TAKE_PTR(round);
	return 0;
}

void round_free(struct round *round)
{
	if (!round)
		return;
	views_free(round->views);
	for (uint32_t b = 0; b < BRANCHES_MAX; b++)
		pass_free(round->passes[b]);
	if (round->drive)
		round->drive->free(round);
	objective_free(round->objective);
	arena_free(round->arena);
	free(round->images);
	free(round);
}

const struct mask *round_mask(const struct round *round)
{
	return round->mask;
}

const struct head *round_head(const struct round *round)
{
	const struct objective_kind *kind = round->objective->kind;

	return kind->head ? kind->head(round->objective) : NULL;
}

const float *round_scores(const struct round *round)
{
	return round->scores;
}

const float *round_weights(const struct round *round, bool teacher)
{
	return round->weights && teacher && round->has_teacher ? round->teacher : round->weights;
}

int round_hardness(
	const struct round *round, const struct digest *mask, void **ret_data, size_t *ret_n_bytes)
{
	const struct objective_kind *kind = round->objective->kind;

	if (!kind->hardness || !round->mask)
		return -ENODATA;
	return kind->hardness(round->objective, mask, ret_data, ret_n_bytes);
}

void round_start_at(struct round *round, const float *scores)
{
	const size_t n_bytes = vit_layout(round->vit)->n_elements * sizeof(*scores);

	memcpy(round->scores, scores, n_bytes);
	if (round->has_teacher)
		memcpy(round->teacher, scores, n_bytes);
	round_take_scores(round);
	round->goes_on = true;
}

static int start_from_features(struct round *round)
{
	struct embed_subset subset;
	struct image_source images = embed_subset_source(&subset, &round->source, WARM_MAX_IMAGES);
	_cleanup_(slot_freep) struct slot *slot = NULL;
	_cleanup_(freep) float *features =
		malloc((size_t)images.n * vit_shape(round->vit)->width * sizeof(*features));
	int r;

	if (!features)
		return -ENOMEM;
	/* Not the round's own: its precision may be another. */
	r = vit_slot_new(&slot, round->vit, SLOT_INFER);
	if (r == 0)
		r = slot_apply(slot, round->goes_on ? round->mask : NULL);
	if (r < 0)
		return r;
	r = judge_embed(features, round->vit, slot, &round->prep, &images);
	if (r < 0)
		return r;
	return round->objective->kind->start(round->objective, features, images.n);
}

/* Here and not in round_new(): a round that resumes needs none of it. */
int round_start(struct round *round)
{
	const struct objective_kind *kind = round->objective->kind;
	int r = kind->wants_features ? start_from_features(round)
				     : kind->start(round->objective, NULL, 0);

	if (r < 0)
		return r;
	round->is_started = true;
	return 0;
}

/* Every branch through one of the networks. */
static int forward(struct round *round, enum branch_network network)
{
	const struct objective *objective = round->objective;
	const struct slot *slot = network == BRANCH_TEACHER ? round->teacher_slot : round->slot;
	int r = 0;

	for (uint32_t b = 0; r == 0 && b < objective->n_branches; b++) {
		if (objective->branches[b].network != network || round->passed.branches[b].idle)
			continue;
		pass_replace_by(round->passes[b], round->passed.branches[b].replacement);
		pass_draw_by(round->passes[b],
			&(struct vit_drop){
				.seed = round->recipe.seed,
				.step = round->step,
				.stream = STREAM_DROP + 16 * b + objective->branches[b].first_view,
				.images = round->images,
				.n_images = round->recipe.batch,
			});
		r = pass_forward(round->passes[b], slot, round->outputs[b]);
	}
	return r;
}

static int backward(struct round *round)
{
	const struct objective *objective = round->objective;
	int r = 0;

	memset(round->grad, 0, n_gradients(round) * sizeof(*round->grad));
	for (uint32_t b = 0; r == 0 && b < objective->n_branches; b++)
		if (objective->branches[b].network == BRANCH_STUDENT &&
			!round->passed.branches[b].idle)
			r = pass_backward(round->passes[b], round->slot,
				round->passed.branches[b].d_out, round->grad, round->d_entry[b]);
	return r;
}

/* Of a ring of rows of n values, value i. One step's loss is noisy, and a full queue of old embeddings
 * moves it. */
static double late_mean(const struct round *round, const float *ring, uint32_t n, uint32_t i)
{
	uint32_t n_done = round->step < round->n_losses ? round->step : round->n_losses;
	double sum = 0;

	for (uint32_t row = 0; row < n_done; row++)
		sum += ring[row * n + i];
	return n_done > 0 ? sum / n_done : 0;
}

static struct round_progress progress_of(const struct round *round)
{
	const struct mask_layout *layout = round->mask->layout;
	struct round_progress progress;
	uint64_t n_on = 0;

	for (unsigned t = 0; t < layout->n_tensors; t++)
		n_on += round->mask->n_on[t];
	progress = (struct round_progress){
		.step = round->step,
		.steps = round->recipe.steps,
		.loss_ratio =
			(float)(late_mean(round, round->losses, 1, 0) / round->objective->scale),
		.density = mask_density(round->mask),
		.lowest_density = mask_lowest_density(round->mask),
		.n_flips = layout->n_elements - n_on,
		.n_figures = round->n_figures,
	};
	for (uint32_t i = 0; i < round->n_figures; i++)
		progress.figures[i] = (struct objective_figure){
			.name = round->objective->kind->figures[i],
			.value = (float)late_mean(round, round->figures, round->n_figures, i),
		};
	return progress;
}

/* What the step leaves: only from here on is anything changed that a repeated one would see. */
static void leave(struct round *round, double loss)
{
	const struct objective_kind *kind = round->objective->kind;
	const uint32_t at = round->step % round->n_losses;
	float decay = -1;

	round->losses[at] = (float)loss;
	for (uint32_t i = 0; i < round->n_figures; i++)
		round->figures[at * round->n_figures + i] = round->passed.figures[i];
	kind->update(round->objective, &round->passed);
	round->drive->update(round);
	if (round->has_teacher && kind->teacher_decay)
		decay = kind->teacher_decay(round->objective, round->step);
	if (decay >= 0)
		round->drive->teach(round, decay);
	round->step++;
}

int round_learn(struct round *round)
{
	struct objective *objective = round->objective;
	double loss;
	int r;

	round->passed.step = round->step;
	r = round->drive->apply(round);
	if (r == 0 && round->has_teacher)
		r = forward(round, BRANCH_TEACHER);
	if (r == 0 && objective->kind->choose)
		r = objective->kind->choose(objective, &round->passed);
	if (r == 0)
		r = forward(round, BRANCH_STUDENT);
	if (r == 0)
		r = objective->kind->loss(objective, &round->passed, &loss);
	if (r < 0)
		return r;
	if (!isfinite(loss))
		return -EDOM;
	r = backward(round);
	if (r == 0)
		leave(round, loss);
	return r;
}

static float *small_views(const struct round *round)
{
	const struct objective *objective = round->objective;
	const struct objective_kind *kind = objective->kind;
	const bool wanted = !kind->wants_small || kind->wants_small(objective, round->step);

	return wanted ? round->small : NULL;
}

int round_step(struct round *round, struct round_progress *ret_progress)
{
	int r;

	if (round->step < round->recipe.steps) {
		r = round->is_started ? 0 : round_start(round);
		if (r == 0)
			r = views_fill(round->views, round->step, round->large, small_views(round));
		if (r == 0) {
			views_images(round->views, round->step, round->images);
			r = round_learn(round);
		}
		if (r < 0)
			return r;
	}
	*ret_progress = progress_of(round);
	return round->step < round->recipe.steps;
}
