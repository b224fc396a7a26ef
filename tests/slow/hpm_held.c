/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "hpm_study.h"
#include "learn/patch_loss.h"
#include "learn/patch_mask.h"
#include "learn/round_state.h"

#define N_SHARES 4u

/** The encoder of some patches and the decoder behind it, one image at a time. */
struct parts {
	const struct hpm *hpm;
	struct vit_tape *tape;
	struct vit_decoder *decoder;
	float *tokens, *out, *target;  /* (T', D), (2, L, n_out), (L, n_out) */
	float *rows, *wanted, *d_rows; /* (M, n_out) */
	float *losses, *sums, *counts; /* (M), (L), (L) */
	uint32_t *order;               /* (L) */
};

static void parts_close(struct parts *parts)
{
	vit_tape_free(parts->tape);
	vit_decoder_free(parts->decoder);
	free(parts->tokens);
	free(parts->out);
	free(parts->target);
	free(parts->rows);
	free(parts->wanted);
	free(parts->d_rows);
	free(parts->losses);
	free(parts->sums);
	free(parts->counts);
	free(parts->order);
}

static int parts_open(struct parts *parts, const struct hpm_view *view, const struct hpm *hpm)
{
	const size_t n_out = (size_t)hpm->n_patches * hpm->shape.n_out;
	const struct vit_tape_options options = {
		.batch = 1,
		.px = view->prep.input_px,
		.n_kept = hpm->n_kept,
		.all_out = true,
		.forward_only = true,
	};
	int r;

	*parts = (struct parts){ .hpm = hpm };
	parts->tokens = malloc((1 + (size_t)hpm->n_kept) * hpm->shape.n_in * sizeof(float));
	parts->out = malloc(2 * n_out * sizeof(float));
	parts->target = malloc(n_out * sizeof(float));
	parts->rows = malloc(n_out * sizeof(float));
	parts->wanted = malloc(n_out * sizeof(float));
	parts->d_rows = malloc(n_out * sizeof(float));
	parts->losses = malloc(hpm->n_patches * sizeof(float));
	parts->sums = malloc(hpm->n_patches * sizeof(float));
	parts->counts = malloc(hpm->n_patches * sizeof(float));
	parts->order = malloc(hpm->n_patches * sizeof(*parts->order));
	if (!parts->tokens || !parts->out || !parts->target || !parts->rows || !parts->wanted ||
		!parts->d_rows || !parts->losses || !parts->sums || !parts->counts || !parts->order)
		return -ENOMEM;
	r = vit_tape_open(&parts->tape, view->vit, &options);
	if (r == 0)
		r = vit_decoder_new(&parts->decoder, &hpm->shape,
			&(struct vit_decoder_options){
				.batch = 1, .n_kept = hpm->n_kept, .forward_only = true });
	return r < 0 ? r : vit_decoder_load(parts->decoder, hpm->teacher);
}

/* The image as the view was given it: order's first n_kept are seen, the others' losses are found. */
static int look(struct parts *parts, const struct hpm_view *view, double *ret_mean)
{
	const struct hpm *hpm = parts->hpm;
	const size_t n_out = hpm->shape.n_out;
	const struct patch_rows rows = { hpm->n_hidden, hpm->shape.n_out, parts->rows,
		parts->wanted };
	int r;

	memcpy(vit_tape_kept(parts->tape), parts->order, hpm->n_kept * sizeof(uint32_t));
	r = vit_tape_forward(parts->tape, view->slot, parts->tokens);
	if (r == 0)
		r = vit_decoder_forward(parts->decoder, parts->tokens, parts->order, parts->out);
	if (r < 0)
		return r;
	for (uint32_t j = 0; j < hpm->n_hidden; j++) {
		const size_t at = parts->order[hpm->n_kept + j] * n_out;

		memcpy(parts->rows + j * n_out, parts->out + at, n_out * sizeof(float));
		memcpy(parts->wanted + j * n_out, parts->target + at, n_out * sizeof(float));
	}
	*ret_mean = hpm->recipe.hpm_target == RECIPE_HPM_FEATURES
			    ? patch_feature_loss(&rows, parts->losses, parts->d_rows)
			    : patch_loss(&rows, parts->losses, parts->d_rows);
	for (uint32_t j = 0; j < hpm->n_hidden; j++) {
		parts->sums[parts->order[hpm->n_kept + j]] += parts->losses[j];
		parts->counts[parts->order[hpm->n_kept + j]] += 1;
	}
	return 0;
}

static void fill_target(struct parts *parts, const struct hpm_view *view, const float *pixels)
{
	const struct hpm *hpm = parts->hpm;

	memcpy(vit_tape_input(parts->tape), pixels,
		(size_t)3 * view->prep.input_px * view->prep.input_px * sizeof(float));
	if (hpm->recipe.hpm_target == RECIPE_HPM_FEATURES) {
		memcpy(parts->target, view->tokens + hpm->shape.n_in,
			(size_t)hpm->n_patches * hpm->shape.n_out * sizeof(float));
		return;
	}
	patch_cut(parts->target, pixels, view->prep.input_px, vit_shape(view->vit)->patch);
	if (hpm->recipe.hpm_target == RECIPE_HPM_NORMALISED)
		patch_normalise(parts->target, hpm->n_patches, hpm->shape.n_out);
}

/* Four masks that leave a quarter each of one random order: sums and counts. */
static int find_losses(struct parts *parts, const struct hpm_view *view, uint32_t image)
{
	const struct hpm *hpm = parts->hpm;
	struct rng rng = rng_stream(hpm->recipe.seed, image, 1, 0);
	_cleanup_(freep) uint32_t *all = malloc(hpm->n_patches * sizeof(*all));
	double mean;
	int r = 0;

	if (!all)
		return -ENOMEM;
	rng_permutation(&rng, all, hpm->n_patches);
	memset(parts->sums, 0, hpm->n_patches * sizeof(float));
	memset(parts->counts, 0, hpm->n_patches * sizeof(float));
	for (uint32_t s = 0; r == 0 && s < N_SHARES; s++) {
		for (uint32_t i = 0; i < hpm->n_patches; i++)
			parts->order[i] = all[(i + s * hpm->n_kept) % hpm->n_patches];
		r = look(parts, view, &mean);
	}
	for (uint32_t i = 0; i < hpm->n_patches; i++)
		parts->sums[i] /= fmaxf(parts->counts[i], 1);
	return r;
}

/* The mean loss if n_hard of what is hidden is hard. */
static int cost_of(struct parts *parts, const struct hpm_view *view, uint32_t image,
	uint32_t n_hard, double *ret_mean)
{
	const struct hpm *hpm = parts->hpm;
	const struct patch_mask mask = { hpm->n_patches, hpm->n_kept, n_hard };
	struct rng rng = rng_stream(hpm->recipe.seed, image, 2, 0);

	patch_mask_choose(&mask, view->map, &rng, parts->order);
	return look(parts, view, ret_mean);
}

static int compare_values(const void *a, const void *b)
{
	const float x = *(const float *)a, y = *(const float *)b;

	return x < y ? -1 : x > y;
}

static void summarise(const float *values, uint32_t n, float *ret_mean, float *ret_top)
{
	float sorted[HARDNESS_MAX_GRID * HARDNESS_MAX_GRID];
	const uint32_t n_top = n / 10 + 1;

	memcpy(sorted, values, n * sizeof(*sorted));
	qsort(sorted, n, sizeof(*sorted), compare_values);
	*ret_mean = *ret_top = 0;
	for (uint32_t i = 0; i < n; i++) {
		*ret_mean += sorted[i] / (float)n;
		*ret_top += i >= n - n_top ? sorted[i] / (float)n_top : 0;
	}
}

/* Ranks from 0, of equal values their mean. */
static void rank_values(float *ranks, const float *values, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		uint32_t below = 0, same = 0;

		for (uint32_t j = 0; j < n; j++) {
			below += values[j] < values[i];
			same += values[j] == values[i];
		}
		ranks[i] = (float)below + (float)(same - 1) / 2;
	}
}

double hpm_spearman(const float *a, const float *b, uint32_t n)
{
	_cleanup_(freep) float *ranks = malloc(2 * (size_t)n * sizeof(*ranks));
	const double mean = (n - 1) / 2.;
	double ab = 0, aa = 0, bb = 0;

	if (!ranks)
		return NAN;
	rank_values(ranks, a, n);
	rank_values(ranks + n, b, n);
	for (uint32_t i = 0; i < n; i++) {
		const double x = ranks[i] - mean, y = ranks[n + i] - mean;

		ab += x * y;
		aa += x * x;
		bb += y * y;
	}
	return aa > 0 && bb > 0 ? ab / sqrt(aa * bb) : 0;
}

/** Of every image. */
struct notes {
	float *spearman, *loss, *mean, *top;
};

static int measure_image(struct parts *parts, struct hpm_view *view,
	const struct image_source *images, uint32_t image, struct hpm_held *held,
	const struct notes *notes)
{
	const struct hpm *hpm = parts->hpm;
	const uint32_t i = held->n;
	struct image_view pixels;
	double random, hard;
	float unused;
	int r = images->get(images->owner, image, &pixels);

	if (r == 0)
		r = hpm_view_look(view, &pixels);
	if (r < 0)
		return r;
	fill_target(parts, view, vit_tape_input(view->whole));
	r = find_losses(parts, view, image);
	if (r < 0)
		return r;
	notes->spearman[i] = (float)hpm_spearman(view->map, parts->sums, hpm->n_patches);
	summarise(view->map, hpm->n_patches, &notes->mean[i], &notes->top[i]);
	summarise(parts->sums, hpm->n_patches, &notes->loss[i], &unused);
	r = cost_of(parts, view, image, 0, &random);
	if (r == 0)
		r = cost_of(parts, view, image, hpm->n_hidden / 2, &hard);
	if (r < 0)
		return r;
	held->random += random;
	held->hard += hard;
	held->n++;
	return 0;
}

static void conclude(struct hpm_held *held, const struct notes *notes)
{
	const uint32_t n = held->n;
	double squares = 0;

	for (uint32_t i = 0; i < n; i++) {
		held->spearman += notes->spearman[i] / n;
		held->share_above += notes->spearman[i] >= .5f ? 1. / n : 0;
	}
	for (uint32_t i = 0; i < n; i++)
		squares += pow(notes->spearman[i] - held->spearman, 2);
	held->spearman_sd = sqrt(squares / (n - 1));
	held->random /= n;
	held->hard /= n;
	held->image_mean = hpm_spearman(notes->mean, notes->loss, n);
	held->image_top = hpm_spearman(notes->top, notes->loss, n);
}

int hpm_held_measure(struct hpm_held *ret_held, struct hpm_view *view, const struct round *round,
	const struct image_source *images, uint32_t n_most)
{
	const uint32_t n = images->n < n_most ? images->n : n_most;
	_cleanup_(freep) float *memory = calloc(4 * (size_t)n, sizeof(*memory));
	const struct notes notes = { memory, memory + n, memory + 2 * n, memory + 3 * n };
	__attribute__((cleanup(parts_close))) struct parts parts = { 0 };
	struct hpm_held held = { 0 };
	int r;

	if (!memory)
		return -ENOMEM;
	r = parts_open(&parts, view, (const struct hpm *)round->objective);
	for (uint32_t i = 0; r == 0 && i < n; i++)
		r = measure_image(&parts, view, images, (uint32_t)((uint64_t)i * images->n / n),
			&held, &notes);
	if (r < 0)
		return r;
	conclude(&held, &notes);
	*ret_held = held;
	return 0;
}
