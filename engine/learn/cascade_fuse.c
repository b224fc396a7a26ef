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

/** Embeddings of one source by the dispatcher and by experts, side by side. */
struct said {
	uint32_t n, width, stride; /* stride: (1 + n_experts) * width */
	float *rows;               /* (n, stride) */
	uint32_t *owners;          /* (n) */
};

static void said_done(struct said *said)
{
	free(said->rows);
	free(said->owners);
}

static int said_new(struct said *said, const struct cascade *cascade, uint32_t n)
{
	uint32_t width = vit_shape(cascade->vit)->width;

	*said = (struct said){
		.n = n, .width = width, .stride = (1 + cascade->options.n_experts) * width
	};
	said->rows = calloc((size_t)n * said->stride + 1, sizeof(*said->rows));
	said->owners = malloc((n + 1u) * sizeof(*said->owners));
	return said->rows && said->owners ? 0 : -ENOMEM;
}

/* Which component each embedding (n, width) belongs to. */
static int assign(
	uint32_t *owners, const struct cascade *cascade, const float *embeddings, uint32_t n)
{
	uint32_t width = vit_shape(cascade->vit)->width, dim = cascade->route->n_out;
	_cleanup_(freep) float *unit = malloc(((size_t)n * width + 1) * sizeof(*unit));
	_cleanup_(freep) float *points = malloc(((size_t)n * dim + 1) * sizeof(*points));

	if (!unit || !points)
		return -ENOMEM;
	cosine_normalise(unit, embeddings, n, width);
	whiten_apply(cascade->route, unit, n, points);
	for (uint32_t i = 0; i < n; i++)
		owners[i] = gmm_assign(cascade->mixture, points + (size_t)i * dim);
	return 0;
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
		r = assign(owners, cascade, embeddings, n);
	return r < 0 ? r : sort_by_owner(share, owners, cascade->options.n_experts);
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

/* What mask m says of some images, into its columns. */
static int say(struct said *said, struct cascade *cascade, unsigned m, struct slot *slot,
	const struct cascade_part *part)
{
	struct cascade_part copy = *part;
	struct image_source source = cascade_part_source(&copy);
	_cleanup_(freep) float *rows = malloc(((size_t)part->n * said->width + 1) * sizeof(*rows));
	int r;

	if (!rows)
		return -ENOMEM;
	r = slot_apply(slot, cascade->masks[m]);
	if (r == 0)
		r = judge_embed(rows, cascade->vit, slot, &cascade->prep, &source);
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < part->n; i++)
		memcpy(said->rows + (size_t)part->images[i] * said->stride +
				(size_t)m * said->width,
			rows + (size_t)i * said->width, said->width * sizeof(*rows));
	return 0;
}

static int ask_dispatcher(struct said *said, struct cascade *cascade, struct slot *slot,
	const struct image_source *source, uint32_t *all)
{
	_cleanup_(freep) float *own = malloc(((size_t)said->n * said->width + 1) * sizeof(*own));
	struct cascade_part part = { source, all, said->n };
	int r;

	if (!own)
		return -ENOMEM;
	for (uint32_t i = 0; i < said->n; i++)
		all[i] = i;
	r = say(said, cascade, 0, slot, &part);
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < said->n; i++)
		memcpy(own + (size_t)i * said->width, said->rows + (size_t)i * said->stride,
			said->width * sizeof(*own));
	return assign(said->owners, cascade, own, said->n);
}

static int ask_all(struct said *said, struct cascade *cascade, enum cascade_mode mode,
	struct slot *slot, const struct image_source *source)
{
	_cleanup_(freep) uint32_t *images = malloc((said->n + 1u) * sizeof(*images));
	int r;

	if (!images)
		return -ENOMEM;
	r = ask_dispatcher(said, cascade, slot, source, images);
	for (uint32_t c = 0; r == 0 && c < cascade->options.n_experts; c++) {
		struct cascade_part part = { source, images, 0 };

		for (uint32_t i = 0; i < said->n; i++)
			if (mode == CASCADE_UNCONDITIONAL || said->owners[i] == c)
				images[part.n++] = i;
		r = say(said, cascade, 1 + c, slot, &part);
	}
	return r;
}

/* Of experts that were not asked, nothing remains. */
static void forget_others(struct said *said)
{
	for (uint32_t i = 0; i < said->n; i++)
		for (uint32_t j = said->width; j < said->stride; j++)
			if (j / said->width != 1 + said->owners[i])
				said->rows[(size_t)i * said->stride + j] = 0;
}

int cascade_fuse(struct cascade *cascade)
{
	uint32_t n = cascade->learnt.source.n;
	_cleanup_(said_done) struct said said = { 0 };
	uint32_t fused;
	int r;

	r = said_new(&said, cascade, n);
	if (r == 0)
		r = ask_all(&said, cascade, CASCADE_UNCONDITIONAL, cascade->slot,
			&cascade->learnt.source);
	if (r < 0)
		return r;
	fused = at_most(said.width, n - 1);
	r = whiten_fit(&cascade->fusions[CASCADE_UNCONDITIONAL], said.rows, n, said.stride, fused);
	if (r < 0)
		return r;
	forget_others(&said);
	r = whiten_fit(&cascade->fusions[CASCADE_CONDITIONAL], said.rows, n, said.stride, fused);
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
	_cleanup_(said_done) struct said said = { 0 };
	int r;

	if (!cascade->fusions[mode])
		return -ENODATA;
	r = said_new(&said, cascade, source->n);
	if (r == 0)
		r = ask_all(&said, cascade, mode, slot, source);
	if (r < 0)
		return r;
	whiten_apply(cascade->fusions[mode], said.rows, said.n, embeddings);
	return 0;
}

size_t cascade_bytes(const struct cascade *cascade, enum cascade_mode mode)
{
	return whiten_bytes(cascade->route) + gmm_bytes(cascade->mixture) +
	       (cascade->fusions[mode] ? whiten_bytes(cascade->fusions[mode]) : 0);
}
