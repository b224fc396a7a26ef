/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "classify/cosine.h"
#include "learn/cascade_state.h"
#include "learn/gmm_fit.h"
#include "learn/judge.h"
#include "learn/whiten_fit.h"

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

static int sort_by_owner(struct cascade_share *share, const uint32_t *owners, uint32_t n_experts)
{
	uint32_t at = 0;

	share->order = malloc((share->source.n + 1u) * sizeof(*share->order));
	if (!share->order)
		return -ENOMEM;
	for (uint32_t c = 0; c < n_experts; c++) {
		share->first[c] = at;
		for (uint32_t i = 0; i < share->source.n; i++)
			if (owners[i] == c)
				share->order[at++] = i;
	}
	share->first[n_experts] = at;
	return 0;
}

/* Fits the mixture first, where there is none yet. */
static int divide(struct cascade *cascade, struct cascade_share *share)
{
	uint32_t n = share->source.n, width = vit_shape(cascade->vit)->width;
	_cleanup_(freep) float *embeddings = malloc(((size_t)n * width + 1) * sizeof(*embeddings));
	_cleanup_(freep) uint32_t *owners = malloc((n + 1u) * sizeof(*owners));
	_cleanup_(mask_set_scratch_freep) struct mask_set_scratch *scratch = NULL;
	struct mask_set set;
	int r;

	if (!embeddings || !owners)
		return -ENOMEM;
	r = slot_apply(cascade->slot, cascade->masks[0]);
	if (r == 0)
		r = judge_embed(
			embeddings, cascade->vit, cascade->slot, &cascade->prep, &share->source);
	if (r == 0 && !cascade->mixture)
		r = fit_route(cascade, embeddings, n);
	if (r == 0)
		r = mask_set_scratch_new(&scratch, n, 0, width);
	if (r < 0)
		return r;
	set = view(cascade, CASCADE_CONDITIONAL);
	mask_set_route(&set, scratch, embeddings, n, owners);
	return sort_by_owner(share, owners, cascade->options.n_experts);
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
	const struct image_source *source = &cascade->learnt.source;
	_cleanup_(mask_set_scratch_freep) struct mask_set_scratch *scratch = NULL;
	struct embed_window window = { cascade->vit, cascade->slot, &set, &cascade->prep, source };
	const struct mask_set_eye eye = { embed_look, &window };
	uint32_t n = source->n, stride = (1 + set.n_experts) * set.width;
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
