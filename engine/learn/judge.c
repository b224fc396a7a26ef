/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>

#include "base/rng.h"
#include "classify/cosine.h"
#include "learn/embed.h"
#include "learn/judge.h"
#include "learn/pca.h"
#include "learn/softmax.h"
#include "learn/streams.h"
#include "learn/views.h"
#include "mask/slot.h"

#define N_BATCH 16u /* images */
#define N_SIDES 2u
#define MIN_DEVIATION 1e-6

/** What embeds the views of one draw after the other. */
struct lens {
	struct vit *vit;
	const struct slot *slot;
	const struct recipe *recipe;
	const struct image_source *source;
	struct views *views;
	struct vit_plan *plan;
	uint32_t batch; /* images; twice as many views */
	float *out;     /* (N_SIDES, batch, width) */

	const struct mask_set *set; /* a cascade; NULL: slot has the mask */
	struct mask_set_scratch *scratch;
	struct slot *own; /* slot, to apply the cascade's masks to */
	uint32_t draw;
};

static void lens_clear(struct lens *lens)
{
	views_free(lens->views);
	vit_plan_free(lens->plan);
	mask_set_scratch_free(lens->scratch);
	free(lens->out);
}

static int lens_open(struct lens *lens, const struct prep *prep)
{
	int r;

	lens->batch = lens->source->n < N_BATCH ? lens->source->n : N_BATCH;
	if (lens->batch == 0)
		return -EINVAL;
	lens->out = malloc(
		(size_t)N_SIDES * lens->batch * vit_shape(lens->vit)->width * sizeof(*lens->out));
	if (!lens->out)
		return -ENOMEM;
	r = views_new(&lens->views, lens->recipe, N_SIDES, prep, lens->source);
	if (r == 0 && lens->set)
		r = mask_set_scratch_new(&lens->scratch, N_SIDES * lens->source->n,
			lens->set->n_experts, lens->set->width);
	if (r < 0)
		return r;
	return vit_plan_new(&lens->plan, lens->vit, N_SIDES * lens->batch, lens->recipe->large_px,
		slot_precision(lens->slot));
}

/* Both views of images first..first+n-1 in a draw, side by side: (N_SIDES, batch, 3, px, px). */
static int lens_draw(const struct lens *lens, uint32_t draw, uint32_t first, uint32_t n)
{
	const struct recipe *recipe = lens->recipe;
	const struct image_source *source = lens->source;
	float *input = vit_plan_input(lens->plan);
	size_t pixels = (size_t)3 * recipe->large_px * recipe->large_px;
	int r;

	for (uint32_t i = 0; i < n; i++) {
		struct image_view image;

		r = source->get(source->owner, first + i, &image);
		if (r < 0)
			return r;
		for (uint32_t side = 0; side < N_SIDES; side++) {
			struct rng rng =
				rng_stream(recipe->seed, first + i, draw, STREAM_JUDGE + side);

			r = views_apply(lens->views, &image, rng, side,
				input + ((size_t)side * lens->batch + i) * pixels);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

/* One view of the draw; they are numbered side after side. */
static int lens_draw_view(const struct lens *lens, uint32_t view, float *pixels)
{
	uint32_t side = view / lens->source->n, i = view % lens->source->n;
	struct rng rng = rng_stream(lens->recipe->seed, i, lens->draw, STREAM_JUDGE + side);
	struct image_view image;
	int r = lens->source->get(lens->source->owner, i, &image);

	return r < 0 ? r : views_apply(lens->views, &image, rng, side, pixels);
}

/* Of a cascade: some views by one of its masks. */
static int lens_look(void *owner, uint32_t m, const uint32_t *views, uint32_t n, float *rows)
{
	const struct lens *lens = owner;
	size_t pixels = (size_t)3 * lens->recipe->large_px * lens->recipe->large_px;
	uint32_t width = vit_shape(lens->vit)->width, most = N_SIDES * lens->batch;
	int r = slot_apply(lens->own, lens->set->masks[m]);

	for (uint32_t i = 0; i < n && r >= 0; i += most) {
		uint32_t n_now = n - i < most ? n - i : most;

		for (uint32_t k = 0; k < n_now && r >= 0; k++)
			r = lens_draw_view(
				lens, views[i + k], vit_plan_input(lens->plan) + k * pixels);
		if (r >= 0)
			r = vit_forward(lens->plan, lens->own, lens->out);
		if (r >= 0)
			memcpy(rows + (size_t)i * width, lens->out,
				(size_t)n_now * width * sizeof(*rows));
	}
	return r < 0 ? r : 0;
}

static int lens_embed_set(struct lens *lens, uint32_t draw, float *embeddings)
{
	const struct mask_set_eye eye = { lens_look, lens };

	lens->draw = draw;
	return mask_set_embed(
		embeddings, lens->set, lens->scratch, &eye, N_SIDES * lens->source->n);
}

static uint32_t lens_width(const struct lens *lens)
{
	return lens->set ? lens->set->n_out : vit_shape(lens->vit)->width;
}

/* embeddings (N_SIDES, n, lens_width) of one draw */
static int lens_embed(struct lens *lens, uint32_t draw, float *embeddings)
{
	size_t width = vit_shape(lens->vit)->width;
	uint32_t total = lens->source->n;
	int r;

	if (lens->set)
		return lens_embed_set(lens, draw, embeddings);
	for (uint32_t i = 0; i < total; i += lens->batch) {
		uint32_t n = total - i < lens->batch ? total - i : lens->batch;

		r = lens_draw(lens, draw, i, n);
		if (r < 0)
			return r;
		r = vit_forward(lens->plan, lens->slot, lens->out);
		if (r < 0)
			return r;
		for (uint32_t side = 0; side < N_SIDES; side++)
			memcpy(embeddings + ((size_t)side * total + i) * width,
				lens->out + (size_t)side * lens->batch * width,
				n * width * sizeof(*embeddings));
	}
	return 0;
}

/* One view among the other side's: is its twin the nearest, and by how much. */
static struct judge_image stand(
	const float *view, const float *others, uint32_t twin, uint32_t n, uint32_t width)
{
	float own = cosine_dot(view, others + (size_t)twin * width, width);
	double sum = 0, sum2 = 0, mean, deviation;
	bool found = true;

	for (uint32_t j = 0; j < n; j++) {
		float cosine;

		if (j == twin)
			continue;
		cosine = cosine_dot(view, others + (size_t)j * width, width);
		found = found && cosine < own;
		sum += cosine;
		sum2 += (double)cosine * cosine;
	}
	mean = sum / (n - 1);
	deviation = sqrt(fmax(sum2 / (n - 1) - mean * mean, 0));
	return (struct judge_image){ found ? 1 : 0, (own - mean) / fmax(deviation, MIN_DEVIATION) };
}

static int effective_rank(float *ret_rank, const float *rows, uint32_t n, uint32_t width)
{
	_cleanup_(freep) double *mean = malloc(width * sizeof(*mean));
	_cleanup_(freep) double *variances = malloc(width * sizeof(*variances));
	_cleanup_(freep) double *axes = malloc((size_t)width * width * sizeof(*axes));
	double sum = 0, entropy = 0;
	int r;

	if (!mean || !variances || !axes)
		return -ENOMEM;
	r = pca_fit(rows, n, width, mean, variances, axes);
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < width; i++)
		sum += sqrt(variances[i]);
	for (uint32_t i = 0; i < width && sum > 0; i++) {
		double share = sqrt(variances[i]) / sum;

		if (share > 0)
			entropy -= share * log(share);
	}
	*ret_rank = (float)exp(entropy);
	return 0;
}

int judge_rows(struct judgement *ret_judgement, struct judge_image *images, float *rows, uint32_t n,
	uint32_t width)
{
	struct judge_image sum = { 0 };
	float rank;
	int r;

	if (n < JUDGE_MIN_IMAGES)
		return -EINVAL;
	cosine_normalise(rows, rows, N_SIDES * n, width);
	for (uint32_t i = 0; i < n; i++) {
		const float *first = rows, *second = rows + (size_t)n * width;
		struct judge_image a = stand(first + (size_t)i * width, second, i, n, width);
		struct judge_image b = stand(second + (size_t)i * width, first, i, n, width);

		images[i].retrieval = (a.retrieval + b.retrieval) / N_SIDES;
		images[i].margin = (a.margin + b.margin) / N_SIDES;
		sum.retrieval += images[i].retrieval;
		sum.margin += images[i].margin;
	}
	r = effective_rank(&rank, rows, N_SIDES * n, width);
	if (r < 0)
		return r;
	*ret_judgement = (struct judgement){ .n = n,
		.retrieval = (float)(sum.retrieval / n),
		.margin = (float)(sum.margin / n),
		.effective_rank = rank };
	return 0;
}

/* The mean over n_draws pairs of views of each image. */
static int judge_draws(struct judgement *ret_judgement, struct judge_image *images,
	struct lens *lens, uint32_t n_draws)
{
	uint32_t n = lens->source->n, width = lens_width(lens);
	_cleanup_(freep) float *rows = malloc((size_t)N_SIDES * n * width * sizeof(*rows));
	struct judge_image drawn[JUDGE_MAX_IMAGES];
	struct judgement mean = { .n = n }, one;
	int r;

	if (!rows)
		return -ENOMEM;
	memset(images, 0, n * sizeof(*images));
	for (uint32_t draw = 0; draw < n_draws; draw++) {
		r = lens_embed(lens, draw, rows);
		if (r == 0)
			r = judge_rows(&one, drawn, rows, n, width);
		if (r < 0)
			return r;
		mean.retrieval += one.retrieval / (float)n_draws;
		mean.margin += one.margin / (float)n_draws;
		mean.effective_rank += one.effective_rank / (float)n_draws;
		for (uint32_t i = 0; i < n; i++) {
			images[i].retrieval += drawn[i].retrieval / n_draws;
			images[i].margin += drawn[i].margin / n_draws;
		}
	}
	*ret_judgement = mean;
	return 0;
}

static int judge_through(struct lens *lens, struct judgement *ret_judgement,
	struct judge_image *images, const struct recipe *recipe, const struct prep *prep,
	const struct image_source *source, struct judge_effort effort)
{
	struct embed_subset subset;
	const struct image_source some = embed_subset_source(&subset, source, effort.n_images);
	struct recipe served = *recipe;
	int r;

	if (some.n < JUDGE_MIN_IMAGES)
		return -EINVAL;
	/* A large input is learnt at its half: what counts is the size it is served at. */
	served.large_px = prep->input_px;
	served.n_small = 0;
	/* Two views that show the same whole image find each other by that. */
	if (served.objective != RECIPE_SWAV)
		recipe_set_views(&served, RECIPE_SWAV);
	lens->recipe = &served;
	lens->source = &some;
	r = lens_open(lens, prep);
	return r < 0 ? r : judge_draws(ret_judgement, images, lens, effort.n_draws);
}

int judge_some(struct judgement *ret_judgement, struct judge_image *images, struct vit *vit,
	const struct slot *slot, const struct recipe *recipe, const struct prep *prep,
	const struct image_source *source, struct judge_effort effort)
{
	_cleanup_(lens_clear) struct lens lens = { .vit = vit, .slot = slot };

	return judge_through(&lens, ret_judgement, images, recipe, prep, source, effort);
}

static struct judge_effort full_effort(uint32_t n_images)
{
	struct judge_effort effort = { JUDGE_MAX_IMAGES, 1 };

	if (n_images > 0)
		effort.n_draws = JUDGE_MAX_IMAGES / n_images;
	if (effort.n_draws < 1)
		effort.n_draws = 1;
	if (effort.n_draws > JUDGE_MAX_DRAWS)
		effort.n_draws = JUDGE_MAX_DRAWS;
	return effort;
}

int judge_views(struct judgement *ret_judgement, struct judge_image *images, struct vit *vit,
	const struct slot *slot, const struct recipe *recipe, const struct prep *prep,
	const struct image_source *source)
{
	return judge_some(
		ret_judgement, images, vit, slot, recipe, prep, source, full_effort(source->n));
}

int judge_views_set(struct judgement *ret_judgement, struct judge_image *images, struct vit *vit,
	struct slot *slot, const struct mask_set *set, const struct recipe *recipe,
	const struct prep *prep, const struct image_source *source)
{
	_cleanup_(lens_clear) struct lens lens = { .vit = vit, .slot = slot, .own = slot };
	int r = 0;

	if (set->n_experts > 0)
		lens.set = set;
	else
		r = slot_apply(slot, set->masks[0]);
	return r < 0 ? r
		     : judge_through(&lens, ret_judgement, images, recipe, prep, source,
			       full_effort(source->n));
}

/* Standard error of the mean of n differences, from their sum and sum of squares. */
static float standard_error(double sum, double sum2, uint32_t n)
{
	double variance = fmax(sum2 - sum * sum / n, 0) / (n - 1);

	return (float)sqrt(variance / n);
}

void judge_compare(struct judgement *judgement, const struct judge_image *images,
	const struct judge_image *frozen)
{
	struct judge_image sum = { 0 }, sum2 = { 0 };

	for (uint32_t i = 0; i < judgement->n; i++) {
		double retrieval = images[i].retrieval - frozen[i].retrieval;
		double margin = images[i].margin - frozen[i].margin;

		sum.retrieval += retrieval;
		sum.margin += margin;
		sum2.retrieval += retrieval * retrieval;
		sum2.margin += margin * margin;
	}
	judgement->retrieval_error = standard_error(sum.retrieval, sum2.retrieval, judgement->n);
	judgement->margin_error = standard_error(sum.margin, sum2.margin, judgement->n);
}

int judge_entropy(float *ret_share, const struct head *head, float temperature,
	const float *embeddings, uint32_t n)
{
	uint32_t k = head->n_prototypes;
	_cleanup_(freep) float *z = malloc((size_t)head->dim * sizeof(*z));
	_cleanup_(freep) float *o = malloc((size_t)k * sizeof(*o));
	_cleanup_(freep) double *mean = calloc(k, sizeof(*mean));
	double entropy = 0;

	if (!z || !o || !mean)
		return -ENOMEM;
	if (n == 0 || k < 2)
		return -EINVAL;
	for (uint32_t i = 0; i < n; i++) {
		float length;

		head_project(head, embeddings + (size_t)i * head->width, 1, z, &length);
		head_score(head, z, 1, o);
		(void)softmax_row(o, o, k, temperature);
		for (uint32_t j = 0; j < k; j++)
			mean[j] += (double)o[j] / n;
	}
	for (uint32_t j = 0; j < k; j++)
		if (!(mean[j] <= 0)) /* what is not a number stays one */
			entropy -= mean[j] * log(mean[j]);
	*ret_share = (float)(entropy / log(k));
	return 0;
}

/* The k nearest of row i by cosine, rows normalised; nearest first. */
static void nearest(
	uint32_t *ret_near, const float *rows, uint32_t i, uint32_t n, uint32_t width, uint32_t k)
{
	float best[JUDGE_NEIGHBOURS];
	uint32_t n_near = 0;

	for (uint32_t j = 0; j < n; j++) {
		float cosine;
		uint32_t at;

		if (j == i)
			continue;
		cosine = cosine_dot(rows + (size_t)i * width, rows + (size_t)j * width, width);
		for (at = n_near; at > 0 && best[at - 1] < cosine; at--) {
			if (at == k)
				continue;
			best[at] = best[at - 1];
			ret_near[at] = ret_near[at - 1];
		}
		if (at == k)
			continue;
		best[at] = cosine;
		ret_near[at] = j;
		n_near += n_near < k;
	}
}

int judge_neighbours(float *ret_share, const float *a, uint32_t width_a, const float *b,
	uint32_t width_b, uint32_t n)
{
	size_t size = (size_t)n * width_a;
	_cleanup_(freep) float *rows = malloc((size + (size_t)n * width_b + 1) * sizeof(*rows));
	uint32_t of_a[JUDGE_NEIGHBOURS], of_b[JUDGE_NEIGHBOURS];
	const uint32_t k = JUDGE_NEIGHBOURS;
	uint64_t n_common = 0;

	if (n < 2 * JUDGE_NEIGHBOURS)
		return -EINVAL;
	if (!rows)
		return -ENOMEM;
	cosine_normalise(rows, a, n, width_a);
	cosine_normalise(rows + size, b, n, width_b);
	for (uint32_t i = 0; i < n; i++) {
		nearest(of_a, rows, i, n, width_a, k);
		nearest(of_b, rows + size, i, n, width_b, k);
		for (uint32_t x = 0; x < k; x++)
			for (uint32_t y = 0; y < k; y++)
				n_common += of_a[x] == of_b[y];
	}
	*ret_share = (float)((double)n_common / ((double)n * k));
	return 0;
}
