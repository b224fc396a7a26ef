/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "learn/micm.h"
#include "learn/micm_mask.h"
#include "learn/patch_loss.h"
#include "learn/sinkhorn.h"
#include "learn/streams.h"
#include "model/row.h"

/* Rows of the head: classes of all views, view by view, then masked patches. */
static uint32_t n_classes(const struct micm *micm)
{
	return micm->n_views * micm->recipe.batch;
}

/* Stage two asks it of the large views' classes alone, */
static uint32_t n_rows_asked(const struct micm *micm, uint32_t step)
{
	return micm_is_second(&micm->recipe, step) ? MICM_TARGETS * micm->recipe.batch
						   : n_classes(micm) + micm->n_masked;
}

/* and of no patch; pixels are still told. */
static uint32_t n_patches_asked(const struct micm *micm, uint32_t step)
{
	return micm_is_second(&micm->recipe, step) ? 0 : micm->n_masked;
}

static void list_masked(struct micm *micm, uint32_t sample, const bool *masked)
{
	for (uint32_t i = 0; i < micm->n_tokens - 1; i++)
		if (masked[i]) {
			micm->samples[micm->n_masked] = sample;
			micm->patches[micm->n_masked++] = i;
		}
}

int micm_choose(struct objective *objective, struct objective_batch *batch)
{
	struct micm *micm = micm_of(objective);
	const struct recipe *recipe = &micm->recipe;
	const uint32_t n_patches = micm->n_tokens - 1;
	struct objective_rows *large = &batch->branches[MICM_LARGE];

	micm->n_masked = 0;
	for (uint32_t row = 0; row < large->n_rows; row++) {
		uint32_t view = row / recipe->batch, image = batch->images[row % recipe->batch];
		struct rng rng = rng_stream(recipe->seed, batch->step, image, STREAM_BLOCKS + view);
		uint32_t n = micm_mask_count(&rng, n_patches, recipe->micm_mask);
		bool *masked = large->replaced + (size_t)row * n_patches;

		micm_mask_draw(&rng, micm->grid, n, masked);
		list_masked(micm, row, masked);
	}
	if (micm->n_views > MICM_TARGETS)
		batch->branches[MICM_SMALL].idle = micm_is_second(recipe, batch->step);
	large->replacement = micm->values + micm_mask_token_at(micm);
	return 0;
}

/* One of the teacher's outputs: token `token` of a sample. */
static void take_target(
	struct micm *micm, uint32_t sample, uint32_t token, const float *o, uint32_t *n_taken)
{
	const uint32_t k = micm->head_shape.n_outputs;

	micm_add_rows(token == 0 ? micm->class_sum : micm->patch_sum, o, 1, k);
	if (token == 0) {
		memcpy(micm->raw + (size_t)sample * k, o, k * sizeof(*o));
	} else if (*n_taken < micm->n_masked && micm->samples[*n_taken] == sample &&
		   micm->patches[*n_taken] == token - 1) {
		memcpy(micm->patch_t + (size_t)*n_taken * k, o, k * sizeof(*o));
		(*n_taken)++;
	}
}

/* Where in the large views' tokens masked patch i lies. */
static size_t patch_at(const struct micm *micm, uint32_t i)
{
	return ((size_t)micm->samples[i] * micm->n_tokens + 1 + micm->patches[i]) * micm->width;
}

/* What is asked of the teacher through its head, and no more: balanced targets have no centre. */
static int teach_asked(struct micm *micm, const struct objective_rows *teacher, uint32_t n_masked)
{
	const uint32_t k = micm->head_shape.n_outputs, n = teacher->n_rows;
	const size_t n_bytes = micm->width * sizeof(float);
	float *x = micm_head_input(micm->head);
	const float *o = micm_head_outputs(micm->head);
	int r;

	for (uint32_t i = 0; i < n; i++)
		memcpy(x + (size_t)i * micm->width,
			teacher->out + (size_t)i * micm->n_tokens * micm->width, n_bytes);
	for (uint32_t i = 0; i < n_masked; i++)
		memcpy(x + (size_t)(n + i) * micm->width, teacher->out + patch_at(micm, i),
			n_bytes);
	r = micm_head_forward(micm->head, micm->teacher, n + n_masked);
	if (r < 0)
		return r;
	memcpy(micm->raw, o, (size_t)n * k * sizeof(*o));
	memcpy(micm->patch_t, o + (size_t)n * k, (size_t)n_masked * k * sizeof(*o));
	return 0;
}

/* All of the teacher's tokens through its head: centres are of all, targets of what is asked. */
static int teach_all(struct micm *micm, const struct objective_rows *teacher)
{
	const uint32_t n = teacher->n_rows * micm->n_tokens, k = micm->head_shape.n_outputs;
	const uint32_t most = n_classes(micm);
	uint32_t n_taken = 0;

	memset(micm->class_sum, 0, k * sizeof(*micm->class_sum));
	memset(micm->patch_sum, 0, k * sizeof(*micm->patch_sum));
	for (uint32_t first = 0; first < n; first += most) {
		uint32_t n_rows = n - first < most ? n - first : most;
		const float *o = micm_head_outputs(micm->head);
		int r;

		memcpy(micm_head_input(micm->head), teacher->out + (size_t)first * micm->width,
			(size_t)n_rows * micm->width * sizeof(float));
		r = micm_head_forward(micm->head, micm->teacher, n_rows);
		if (r < 0)
			return r;
		for (uint32_t i = 0; i < n_rows; i++)
			take_target(micm, (first + i) / micm->n_tokens,
				(first + i) % micm->n_tokens, o + (size_t)i * k, &n_taken);
	}
	return 0;
}

/* As swav's assignments: all outputs are used alike, in this batch and not only on the whole. */
static void balance(const struct micm *micm, float temperature, uint32_t n_masked)
{
	const uint32_t k = micm->head_shape.n_outputs, n = MICM_TARGETS * micm->recipe.batch;

	memcpy(micm->t, micm->raw, (size_t)n * k * sizeof(*micm->t));
	sinkhorn(micm->t, n, k, temperature, micm->recipe.sinkhorn_iterations);
	if (n_masked > 0)
		sinkhorn(micm->patch_t, n_masked, k, temperature, micm->recipe.sinkhorn_iterations);
}

static void sharpen(struct micm *micm, uint32_t step)
{
	const float temperature = micm_temperature(&micm->recipe, step);
	const uint32_t n_masked = n_patches_asked(micm, step);
	const uint32_t k = micm->head_shape.n_outputs;

	if (micm->recipe.micm_balance) {
		balance(micm, temperature, n_masked);
		return;
	}
	micm_sharpen(micm->t, micm->raw, micm->centre, MICM_TARGETS * micm->recipe.batch, k,
		temperature);
	micm_sharpen(micm->patch_t, micm->patch_t, micm->patch_centre, n_masked, k, temperature);
}

/* Where row `row` of the head comes from, and its gradient goes to: in out or d_out of a branch. */
static size_t place(const struct micm *micm, uint32_t row, enum micm_branch *ret_branch)
{
	const uint32_t n_large = MICM_TARGETS * micm->recipe.batch;

	*ret_branch = MICM_LARGE;
	if (row < n_large)
		return (size_t)row * micm->n_tokens * micm->width;
	if (row >= n_classes(micm))
		return patch_at(micm, row - n_classes(micm));
	*ret_branch = MICM_SMALL;
	return (size_t)(row - n_large) * micm->width;
}

static void gather(struct micm *micm, const struct objective_batch *batch, uint32_t n)
{
	float *x = micm_head_input(micm->head);

	for (uint32_t row = 0; row < n; row++) {
		enum micm_branch branch;
		size_t at = place(micm, row, &branch);

		memcpy(x + (size_t)row * micm->width, batch->branches[branch].out + at,
			micm->width * sizeof(*x));
	}
}

static void scatter(struct micm *micm, const struct objective_batch *batch, uint32_t n)
{
	const float *d_x = micm_head_d_input(micm->head);

	for (uint32_t row = 0; row < n; row++) {
		enum micm_branch branch;
		size_t at = place(micm, row, &branch);

		row_add(batch->branches[branch].d_out + at, d_x + (size_t)row * micm->width,
			micm->width);
	}
}

static void scale_rows(float *d_o, float weight, size_t n)
{
	for (size_t i = 0; i < n; i++)
		d_o[i] *= weight;
}

/* What the head's outputs cost, and their gradient. Stage two asks for neighbours instead. */
static double ask_head(struct micm *micm, const struct objective_batch *batch)
{
	const struct recipe *recipe = &micm->recipe;
	const struct micm_shape shape = { recipe->batch, micm->n_views, micm->head_shape.n_outputs,
		recipe->temperature };
	const size_t n_class = (size_t)n_classes(micm) * shape.n_outputs;
	const size_t n_patch = (size_t)micm->n_masked * shape.n_outputs;
	const float *o = micm_head_outputs(micm->head);
	float *d_o = micm_head_d_outputs(micm->head);

	if (micm_is_second(recipe, batch->step)) {
		const double loss =
			micm_pseudo_loss(&shape, o, micm->raw, micm->t, micm->nearest, d_o);

		batch->figures[MICM_FIGURE_PSEUDO] = (float)loss;
		scale_rows(d_o, recipe->micm_pseudo,
			(size_t)MICM_TARGETS * recipe->batch * shape.n_outputs);
		return recipe->micm_pseudo * loss;
	}
	batch->figures[MICM_FIGURE_CLASS] = (float)micm_class_loss(&shape, o, micm->t, d_o);
	batch->figures[MICM_FIGURE_PATCH] = (float)micm_patch_loss(
		&shape, micm->samples, o + n_class, micm->patch_t, micm->n_masked, d_o + n_class);
	scale_rows(d_o, recipe->micm_class, n_class);
	scale_rows(d_o + n_class, recipe->micm_patch, n_patch);
	return (double)recipe->micm_class * batch->figures[MICM_FIGURE_CLASS] +
	       (double)recipe->micm_patch * batch->figures[MICM_FIGURE_PATCH];
}

/* Views of which some patch is masked. */
static uint32_t n_views_masked(const struct micm *micm)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < micm->n_masked; i++)
		n += i == 0 || micm->samples[i] != micm->samples[i - 1];
	return n;
}

/* What outputs of 0 cost where ask_head() asks: all classes are alike, and every cosine is 0. */
static double guess_head(const struct micm *micm, uint32_t step)
{
	const struct recipe *recipe = &micm->recipe;
	const double n_terms = MICM_TARGETS * (micm->n_views - 1);
	const double n_pairs = MICM_TARGETS * MICM_TARGETS;
	const double masked = (double)n_views_masked(micm) / recipe->batch;

	if (micm_is_second(recipe, step))
		return recipe->batch > 1 ? recipe->micm_pseudo * n_pairs / (1 + n_pairs) * log(2)
					 : 0;
	return (recipe->micm_class * n_terms / (1 + n_terms) +
		       recipe->micm_patch * masked / (1 + MICM_TARGETS)) *
	       log(recipe->n_prototypes);
}

/* Masked patches first, first + 1..., up to MICM_ROWS of them: x and wanted; 0 behind the last. */
static uint32_t gather_patches(
	struct micm *micm, const struct objective_rows *large, uint32_t first)
{
	const uint32_t n = micm->n_masked - first < MICM_ROWS ? micm->n_masked - first : MICM_ROWS;
	const size_t n_view = (size_t)3 * micm->recipe.large_px * micm->recipe.large_px;

	memset(micm->x, 0, (size_t)MICM_ROWS * micm->width * sizeof(*micm->x));
	for (uint32_t i = 0; i < n; i++) {
		memcpy(micm->x + (size_t)i * micm->width, large->out + patch_at(micm, first + i),
			micm->width * sizeof(*micm->x));
		patch_cut_one(micm->wanted + (size_t)i * micm->n_pixels,
			large->pixels + micm->samples[first + i] * n_view, micm->recipe.large_px,
			micm->patch, micm->patches[first + i]);
	}
	if (micm->recipe.micm_normalise)
		patch_normalise(micm->wanted, n, micm->n_pixels);
	return n;
}

/* One block of masked patches; their gradient is added to d_out. The error of the prediction becomes
 * its gradient in place. */
static int tell_block(
	struct micm *micm, const struct objective_rows *large, uint32_t first, double *loss)
{
	const size_t n_all = (size_t)large->n_rows * (micm->n_tokens - 1) * micm->n_pixels;
	const uint32_t n = gather_patches(micm, large, first);
	float *w = micm->values + micm_telling_at(micm), *grad = micm->grad + micm_telling_at(micm);
	const size_t n_w = (size_t)micm->n_pixels * micm->width, told = (size_t)n * micm->n_pixels;
	int r;

	r = dense_forward(micm->telling, w, w + n_w, micm->x, micm->told);
	if (r < 0)
		return r;
	micm->guess +=
		(double)micm->recipe.micm_pixel * micm_pixel_guess(micm->wanted, told, n_all);
	*loss += micm_pixel_loss(micm->told, micm->wanted, told, n_all, micm->told);
	scale_rows(micm->told, micm->recipe.micm_pixel, told);
	memset(micm->told + told, 0,
		((size_t)MICM_ROWS * micm->n_pixels - told) * sizeof(*micm->told));
	r = dense_backward(micm->telling, w, micm->x, micm->told, grad, grad + n_w, micm->d_x);
	for (uint32_t i = 0; r == 0 && i < n; i++)
		row_add(large->d_out + patch_at(micm, first + i),
			micm->d_x + (size_t)i * micm->width, micm->width);
	return r;
}

static int tell_pixels(struct micm *micm, const struct objective_rows *large, double *ret_loss)
{
	double loss = 0;
	int r = 0;

	for (uint32_t first = 0; r == 0 && first < micm->n_masked; first += MICM_ROWS)
		r = tell_block(micm, large, first, &loss);
	*ret_loss = loss;
	return r;
}

/* Mean over the teacher's class targets, as a share of ln K. */
static float entropy(const struct micm *micm)
{
	const size_t k = micm->head_shape.n_outputs, n = (size_t)MICM_TARGETS * micm->recipe.batch;
	double sum = 0;

	for (size_t i = 0; i < n * k; i++)
		if (micm->t[i] > 0)
			sum -= (double)micm->t[i] * log((double)micm->t[i]);
	return (float)(sum / (double)n / log((double)k));
}

static void clear(struct micm *micm, const struct objective_batch *batch)
{
	const struct objective_rows *large = &batch->branches[MICM_LARGE];

	memset(micm->grad, 0, micm->params->n_values * sizeof(*micm->grad));
	memset(batch->figures, 0, MICM_N_FIGURES * sizeof(*batch->figures));
	memset(large->d_out, 0,
		(size_t)large->n_rows * micm->n_tokens * micm->width * sizeof(float));
	if (micm->n_views > MICM_TARGETS)
		memset(batch->branches[MICM_SMALL].d_out, 0,
			(size_t)batch->branches[MICM_SMALL].n_rows * micm->width * sizeof(float));
}

int micm_step_loss(
	struct objective *objective, const struct objective_batch *batch, double *ret_loss)
{
	struct micm *micm = micm_of(objective);
	const struct objective_rows *large = &batch->branches[MICM_LARGE];
	const uint32_t n = n_rows_asked(micm, batch->step);
	double loss, pixels = 0;
	int r;

	clear(micm, batch);
	r = micm->recipe.micm_balance ? teach_asked(micm, &batch->branches[MICM_TEACHER],
						n_patches_asked(micm, batch->step))
				      : teach_all(micm, &batch->branches[MICM_TEACHER]);
	if (r < 0)
		return r;
	sharpen(micm, batch->step);
	gather(micm, batch, n);
	r = micm_head_forward(micm->head, micm->values, n);
	if (r < 0)
		return r;
	loss = ask_head(micm, batch);
	micm->guess = guess_head(micm, batch->step);
	/* It overwrites the head's part of grad. */
	r = micm_head_backward(micm->head, micm->values, n, micm->grad);
	if (r < 0)
		return r;
	scatter(micm, batch, n);
	if (micm->recipe.micm_pixel > 0)
		r = tell_pixels(micm, large, &pixels);
	batch->figures[MICM_FIGURE_PIXEL] = (float)pixels;
	batch->figures[MICM_FIGURE_ENTROPY] = entropy(micm);
	batch->figures[MICM_FIGURE_MASKED] =
		(float)micm->n_masked / (float)(large->n_rows * (micm->n_tokens - 1));
	if (r < 0)
		return r;
	loss += (double)micm->recipe.micm_pixel * pixels;
	/* Where nothing is asked nobody is better than a guess. */
	*ret_loss = micm->guess > 0 ? loss / micm->guess : 1;
	return 0;
}

void micm_mask_token_backward(struct micm *micm, const struct objective_rows *large)
{
	float *grad = micm->grad + micm_mask_token_at(micm);

	for (uint32_t i = 0; i < micm->n_masked; i++)
		row_add(grad, large->d_entry + patch_at(micm, i), micm->width);
}
