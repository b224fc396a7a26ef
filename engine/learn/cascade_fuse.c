/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "classify/cosine.h"
#include "learn/cascade_state.h"
#include "learn/gmm_fit.h"
#include "learn/judge.h"
#include "learn/warm.h"
#include "learn/whiten_fit.h"

/* Fitted to an even part of the images, as prototypes are: covariances take memory for all of them
 * at once, and time in which no interrupt is seen. */
#define MAX_ROWS WARM_MAX_IMAGES

static uint32_t at_most(uint32_t value, uint32_t most)
{
	return value < most ? value : most;
}

/* As a set that borrows everything; without its fusion before that is fitted. */
static struct mask_set view(const struct cascade *cascade, enum cascade_mode mode)
{
	struct mask_set set = {
		.n_experts = cascade->options.n_experts,
		.mode = mode,
		.width = vit_shape(cascade->vit)->width,
		.n_out = cascade_width(cascade),
		.route = cascade->route,
		.mixture = cascade->mixture,
		.fusion = cascade->fusions[mode],
	};

	memcpy(set.masks, cascade->masks, sizeof(set.masks));
	return set;
}

/* The route and the mixture over it, from embeddings (n, width), which become of length 1. */
static int fit_route(struct cascade *cascade, float *embeddings, uint32_t n)
{
	const struct gmm_options options = gmm_options_default();
	uint32_t width = vit_shape(cascade->vit)->width;
	uint32_t dim = at_most(cascade->options.n_route, n - 1);
	_cleanup_(freep) float *points = malloc((size_t)n * dim * sizeof(*points));
	int r;

	if (!points)
		return -ENOMEM;
	cosine_normalise(embeddings, embeddings, n, width);
	r = whiten_fit(&cascade->route, embeddings, n, width, dim);
	if (r < 0)
		return r;
	whiten_apply(cascade->route, embeddings, n, points);
	return gmm_fit(&cascade->mixture, points, n, dim, cascade->options.n_experts,
		cascade->recipe.seed, &options);
}

/* Embeddings (n, width) by the dispatcher, which the slot holds. */
static int look_at(
	const struct cascade *cascade, const struct image_source *source, float *embeddings)
{
	return judge_embed(embeddings, cascade->vit, cascade->slot, &cascade->prep, source);
}

static int fit(struct cascade *cascade, const struct image_source *source, float *embeddings)
{
	struct embed_subset subset;
	const struct image_source some = embed_subset_source(&subset, source, MAX_ROWS);
	int r = look_at(cascade, &some, embeddings);

	return r < 0 ? r : fit_route(cascade, embeddings, some.n);
}

/* Whose each image of a source is, some of them at a time. is_seen: their embeddings are there. */
static int find_owners(const struct cascade *cascade, const struct cascade_share *share,
	float *embeddings, bool is_seen, uint32_t *owners)
{
	const struct mask_set set = view(cascade, CASCADE_CONDITIONAL);
	_cleanup_(mask_set_scratch_freep) struct mask_set_scratch *scratch = NULL;
	uint32_t n = share->source.n, n_now;
	int r = mask_set_scratch_new(&scratch, at_most(n, MAX_ROWS), 0, set.width);

	for (uint32_t i = 0; r == 0 && i < n; i += n_now) {
		struct embed_part part = { &share->source, share->order + i, 0 };
		struct image_source some;

		n_now = at_most(n - i, MAX_ROWS);
		part.n = n_now;
		some = embed_part_source(&part);
		if (!is_seen)
			r = look_at(cascade, &some, embeddings);
		if (r == 0)
			mask_set_route(&set, scratch, embeddings, n_now, owners + i);
	}
	return r;
}

static void sort_by_owner(struct cascade_share *share, const uint32_t *owners, uint32_t n_experts)
{
	uint32_t at = 0;

	for (uint32_t c = 0; c < n_experts; c++) {
		share->first[c] = at;
		for (uint32_t i = 0; i < share->source.n; i++)
			if (owners[i] == c)
				share->order[at++] = i;
	}
	share->first[n_experts] = at;
}

/* Fits the mixture first, where there is none yet. */
static int divide(struct cascade *cascade, struct cascade_share *share)
{
	uint32_t n = share->source.n, n_rows = at_most(n, MAX_ROWS);
	uint32_t width = vit_shape(cascade->vit)->width;
	_cleanup_(freep) float *embeddings = malloc(((size_t)n_rows * width + 1) * sizeof(float));
	_cleanup_(freep) uint32_t *owners = malloc((n + 1u) * sizeof(*owners));
	bool fits = !cascade->mixture;
	int r;

	share->order = malloc((n + 1u) * sizeof(*share->order));
	if (!embeddings || !owners || !share->order)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++)
		share->order[i] = i;
	r = slot_apply(cascade->slot, cascade->masks[0]);
	if (r == 0 && fits)
		r = fit(cascade, &share->source, embeddings);
	if (r == 0)
		r = find_owners(cascade, share, embeddings, fits && n == n_rows, owners);
	if (r < 0)
		return r;
	sort_by_owner(share, owners, cascade->options.n_experts);
	return 0;
}

int cascade_divide(struct cascade *cascade, struct diag *diag)
{
	int r = divide(cascade, &cascade->learnt);

	if (r == 0 && cascade->held.source.n > 0)
		r = divide(cascade, &cascade->held);
	if (r < 0)
		return diag_set(diag, -r, "cascade: cannot divide the images: %s", strerror(-r));
	return 0;
}

/* Of experts that were not asked, nothing remains. */
static void forget_others(
	float *rows, const uint32_t *owners, uint32_t n, uint32_t width, uint32_t stride)
{
	for (uint32_t i = 0; i < n; i++)
		for (uint32_t j = width; j < stride; j++)
			if (j / width != 1 + owners[i])
				rows[(size_t)i * stride + j] = 0;
}

int cascade_fuse(struct cascade *cascade)
{
	const struct mask_set set = view(cascade, CASCADE_UNCONDITIONAL);
	struct embed_subset subset;
	const struct image_source some =
		embed_subset_source(&subset, &cascade->learnt.source, MAX_ROWS);
	_cleanup_(mask_set_scratch_freep) struct mask_set_scratch *scratch = NULL;
	struct embed_window window = { cascade->vit, cascade->slot, &set, &cascade->prep, &some };
	const struct mask_set_eye eye = { embed_look, &window };
	uint32_t n = some.n, stride = (1 + set.n_experts) * set.width;
	const uint32_t *owners;
	float *rows;
	int r;

	r = mask_set_scratch_new(&scratch, n, set.n_experts, set.width);
	if (r == 0)
		r = mask_set_ask(&set, scratch, &eye, n, &rows, &owners);
	if (r == 0)
		r = whiten_fit(
			&cascade->fusions[CASCADE_UNCONDITIONAL], rows, n, stride, set.n_out);
	if (r < 0)
		return r;
	forget_others(rows, owners, n, set.width, stride);
	r = whiten_fit(&cascade->fusions[CASCADE_CONDITIONAL], rows, n, stride, set.n_out);
	if (r < 0)
		whiten_free(TAKE_PTR(cascade->fusions[CASCADE_UNCONDITIONAL]));
	return r;
}

uint32_t cascade_width(const struct cascade *cascade)
{
	return at_most(vit_shape(cascade->vit)->width, cascade->learnt.source.n - 1);
}

int cascade_embed(float *embeddings, struct cascade *cascade, enum cascade_mode mode,
	struct slot *slot, const struct image_source *source)
{
	const struct mask_set set = view(cascade, mode);

	if (!set.fusion)
		return -ENODATA;
	return judge_embed_set(embeddings, cascade->vit, slot, &set, &cascade->prep, source);
}

int cascade_take(struct cascade *cascade, enum cascade_mode mode, struct mask_set **ret_set)
{
	const struct mask_set_parts parts = { cascade->options.n_experts,
		vit_shape(cascade->vit)->width, mode, cascade->masks, cascade->route,
		cascade->mixture, cascade->fusions[mode] };
	int r;

	if (!parts.fusion)
		return -ENODATA;
	r = mask_set_join(ret_set, &parts);
	if (r < 0)
		return r;
	memset(cascade->masks, 0, sizeof(cascade->masks));
	cascade->route = NULL;
	cascade->mixture = NULL;
	cascade->fusions[mode] = NULL;
	return 0;
}

size_t cascade_bytes(const struct cascade *cascade, enum cascade_mode mode)
{
	return whiten_bytes(cascade->route) + gmm_bytes(cascade->mixture) +
	       (cascade->fusions[mode] ? whiten_bytes(cascade->fusions[mode]) : 0);
}
