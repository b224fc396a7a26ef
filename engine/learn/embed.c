/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "learn/embed.h"
#include "learn/judge.h"
#include "mask/slot.h"

#define N_BATCH 32u

static int subset_get(void *owner, uint32_t i, struct image_view *ret_view)
{
	const struct embed_subset *subset = owner;
	uint32_t at = (uint32_t)((uint64_t)i * subset->whole->n / subset->n);

	return subset->whole->get(subset->whole->owner, at, ret_view);
}

struct image_source embed_subset_source(
	struct embed_subset *subset, const struct image_source *whole, uint32_t n_max)
{
	subset->whole = whole;
	subset->n = whole->n < n_max ? whole->n : n_max;
	return (struct image_source){
		.owner = subset,
		.n = subset->n,
		.get = subset_get,
		.manifest = whole->manifest,
	};
}

static int part_get(void *owner, uint32_t i, struct image_view *ret_view)
{
	const struct embed_part *part = owner;

	if (i >= part->n)
		return -ERANGE;
	return part->whole->get(part->whole->owner, part->images[i], ret_view);
}

struct image_source embed_part_source(struct embed_part *part)
{
	struct digest_state digest;

	digest_init(&digest);
	digest_update(&digest, &part->whole->manifest, sizeof(part->whole->manifest));
	digest_update(&digest, part->images, part->n * sizeof(*part->images));
	return (struct image_source){
		.owner = part, .n = part->n, .get = part_get, .manifest = digest_final(&digest)
	};
}

static int prepare(const struct prep *prep, const struct image_source *source, uint32_t first,
	uint32_t n, float *input, struct resize_scratch *scratch)
{
	size_t pixels = (size_t)3 * prep->input_px * prep->input_px;
	int r;

	for (uint32_t i = 0; i < n; i++) {
		struct image_view image;

		r = source->get(source->owner, first + i, &image);
		if (r < 0)
			return r;
		r = prep_apply(prep, &image, input + i * pixels, scratch);
		if (r < 0)
			return r;
	}
	return 0;
}

/* pooled: (n, 2 width), else (n, width). */
static int embed(float *rows, struct vit *vit, const struct slot *slot, const struct prep *prep,
	const struct image_source *source, bool pooled)
{
	_cleanup_(resize_scratch_freep) struct resize_scratch *scratch = NULL;
	_cleanup_(vit_plan_freep) struct vit_plan *plan = NULL;
	_cleanup_(freep) float *out = NULL;
	uint32_t batch = source->n < N_BATCH ? source->n : N_BATCH;
	uint32_t width = vit_shape(vit)->width, n_row = pooled ? 2 * width : width;
	int r;

	if (batch == 0)
		return 0;
	out = malloc((size_t)batch * width * sizeof(*out));
	if (!out)
		return -ENOMEM;
	r = resize_scratch_new(&scratch);
	if (r == 0)
		r = vit_plan_open(&plan, vit,
			&(struct vit_plan_options){
				.batch = batch,
				.px = prep->input_px,
				.precision = slot_precision(slot),
				.pooled = pooled,
			});
	for (uint32_t i = 0; r == 0 && i < source->n; i += batch) {
		uint32_t n = source->n - i < batch ? source->n - i : batch;

		/* A last, shorter batch leaves old pixels in the rows behind it: not copied out. */
		r = prepare(prep, source, i, n, vit_plan_input(plan), scratch);
		if (r == 0)
			r = vit_forward(plan, slot, out);
		if (r == 0)
			memcpy(rows + (size_t)i * n_row, pooled ? vit_plan_features(plan) : out,
				(size_t)n * n_row * sizeof(*rows));
	}
	return r;
}

int judge_embed(float *embeddings, struct vit *vit, const struct slot *slot,
	const struct prep *prep, const struct image_source *source)
{
	return embed(embeddings, vit, slot, prep, source, false);
}

int judge_features(float *features, struct vit *vit, const struct slot *slot,
	const struct prep *prep, const struct image_source *source)
{
	return embed(features, vit, slot, prep, source, true);
}

int embed_look(void *owner, uint32_t m, const uint32_t *images, uint32_t n, float *rows)
{
	const struct embed_window *window = owner;
	struct embed_part part = { window->source, images, n };
	const struct image_source source = embed_part_source(&part);
	int r = slot_apply(window->slot, window->set->masks[m]);

	return r < 0 ? r : judge_embed(rows, window->vit, window->slot, window->prep, &source);
}

int judge_embed_set(float *embeddings, struct vit *vit, struct slot *slot,
	const struct mask_set *set, const struct prep *prep, const struct image_source *source)
{
	_cleanup_(mask_set_scratch_freep) struct mask_set_scratch *scratch = NULL;
	struct embed_window window = { vit, slot, set, prep, source };
	const struct mask_set_eye eye = { embed_look, &window };
	int r;

	r = mask_set_scratch_new(&scratch, source->n, set->n_experts, set->width);
	return r < 0 ? r : mask_set_embed(embeddings, set, scratch, &eye, source->n);
}
