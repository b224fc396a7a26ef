/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>

#include "base/rng.h"
#include "image/augment.h"
#include "learn/streams.h"
#include "learn/views.h"

#define MIN_AREA .05f

struct views {
	struct recipe recipe;
	struct prep prep;
	struct image_source source;
	struct augment large, small;
	struct augment_scratch *scratch[VIEWS_MAX]; /* one a view: they are made side by side */
	uint32_t n_large, n_views;
	/* (n_order) of `epoch`: every image once; of fewer images than a batch has, as often as it takes. */
	uint32_t *order;
	uint32_t n_order, epoch;
};

static void set_colours(struct augment *augment, const struct recipe *recipe)
{
	augment->brightness = augment->contrast = augment->saturation = recipe->jitter;
	augment->hue = recipe->hue;
	augment->blur_p = recipe->blur;
	augment->solarize_p = recipe->solarize;
}

int views_new(struct views **ret_views, const struct recipe *recipe, uint32_t n_large,
	const struct prep *prep, const struct image_source *source)
{
	_cleanup_(views_freep) struct views *views = calloc(1, sizeof(*views));
	uint32_t max_px = recipe->large_px > recipe->small_px ? recipe->large_px : recipe->small_px;
	int r;

	if (!views)
		return -ENOMEM;
	if (n_large + recipe->n_small > VIEWS_MAX)
		return -EINVAL;
	views->recipe = *recipe;
	views->prep = *prep;
	views->source = *source;
	views->n_large = n_large;
	views->n_views = n_large + recipe->n_small;
	views->epoch = UINT32_MAX;
	views->large =
		augment_default(recipe->large_px, recipe->min_area, 1, prep->mean, prep->std);
	views->small = augment_default(
		recipe->small_px, MIN_AREA, recipe->min_area, prep->mean, prep->std);
	set_colours(&views->large, recipe);
	set_colours(&views->small, recipe);
	views->n_order = (recipe->batch + source->n - 1) / source->n * source->n;
	if (recipe->batch <= source->n)
		views->n_order = source->n;
	views->order = malloc(views->n_order * sizeof(*views->order));
	if (!views->order)
		return -ENOMEM;
	for (uint32_t v = 0; v < views->n_views; v++) {
		r = augment_scratch_new(&views->scratch[v], max_px);
		if (r < 0)
			return r;
	}
	*ret_views = TAKE_PTR(views);
	return 0;
}

void views_free(struct views *views)
{
	if (!views)
		return;
	for (uint32_t v = 0; v < views->n_views; v++)
		augment_scratch_free(views->scratch[v]);
	free(views->order);
	free(views);
}

/* Whole batches only: what is left of an epoch's order is not used. */
static uint32_t image_at(struct views *views, uint32_t step, uint32_t b)
{
	uint32_t n_batches = views->n_order / views->recipe.batch;
	uint32_t epoch = step / n_batches;

	if (epoch != views->epoch) {
		struct rng rng = rng_stream(views->recipe.seed, epoch, 0, STREAM_ORDER);

		for (uint32_t at = 0; at < views->n_order; at += views->source.n)
			rng_permutation(&rng, views->order + at, views->source.n);
		views->epoch = epoch;
	}
	return views->order[step % n_batches * views->recipe.batch + b];
}

/* What serving never sees, a site that crops must not learn from either. */
static struct image_view served_part(const struct prep *prep, const struct image_view *image)
{
	struct resize_box box = prep_source_box(prep, image);
	struct image_view part = *image;
	uint32_t x = (uint32_t)fmaxf(floorf(box.x), 0), y = (uint32_t)fmaxf(floorf(box.y), 0);

	part.width = (uint32_t)fminf(ceilf(box.x + box.width), (float)image->width) - x;
	part.height = (uint32_t)fminf(ceilf(box.y + box.height), (float)image->height) - y;
	part.pixels += y * image->stride + (size_t)x * image->n_channels;
	return part;
}

int views_apply(struct views *views, const struct image_view *image, struct rng rng, uint32_t view,
	float *dst)
{
	struct image_view part = served_part(&views->prep, image);

	return augment_apply(view < views->n_large ? &views->large : &views->small, &part, &rng,
		dst, views->scratch[view]);
}

static float *row_of(
	const struct views *views, float *large, float *small, uint32_t view, uint32_t b)
{
	bool is_large = view < views->n_large;
	size_t px = is_large ? views->recipe.large_px : views->recipe.small_px;
	uint32_t v = is_large ? view : view - views->n_large;

	return (is_large ? large : small) + ((size_t)v * views->recipe.batch + b) * 3 * px * px;
}

static int fill_image(struct views *views, uint32_t step, uint32_t b, float *large, float *small)
{
	const uint32_t n_views = small ? views->n_views : views->n_large;
	uint32_t image = image_at(views, step, b);
	int failed[VIEWS_MAX] = { 0 };
	struct image_view pixels;
	int r;

	r = views->source.get(views->source.owner, image, &pixels);
	if (r < 0)
		return r;
		/* Every view has its own random stream: the team's size does not change a pixel. */
#pragma omp parallel for schedule(static, 1)
	for (uint32_t v = 0; v < n_views; v++)
		failed[v] =
			views_apply(views, &pixels, rng_stream(views->recipe.seed, step, image, v),
				v, row_of(views, large, small, v, b));
	for (uint32_t v = 0; v < n_views; v++)
		if (failed[v] < 0)
			return failed[v];
	return 0;
}

int views_fill(struct views *views, uint32_t step, float *large, float *small)
{
	int r;

	for (uint32_t b = 0; b < views->recipe.batch; b++) {
		r = fill_image(views, step, b, large, small);
		if (r < 0)
			return r;
	}
	return 0;
}

void views_images(struct views *views, uint32_t step, uint32_t *images)
{
	for (uint32_t b = 0; b < views->recipe.batch; b++)
		images[b] = image_at(views, step, b);
}
