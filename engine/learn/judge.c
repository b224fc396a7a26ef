/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>

#include "base/rng.h"
#include "classify/cosine.h"
#include "learn/embed.h"
#include "learn/judge.h"
#include "learn/pca.h"
#include "learn/streams.h"
#include "learn/views.h"

#define N_BATCH 16u /* images; twice as many views */
#define N_SIDES 2u
#define MIN_DEVIATION 1e-6

/* Both views of images first..first+n-1, view by view: input (N_SIDES, batch, 3, px, px). */
static int draw(struct views *views, const struct recipe *recipe, const struct image_source *source,
	uint32_t first, uint32_t n, uint32_t batch, float *input)
{
	size_t pixels = (size_t)3 * recipe->large_px * recipe->large_px;
	int r;

	for (uint32_t i = 0; i < n; i++) {
		struct image_view image;

		r = source->get(source->owner, first + i, &image);
		if (r < 0)
			return r;
		for (uint32_t side = 0; side < N_SIDES; side++) {
			struct rng rng =
				rng_stream(recipe->seed, first + i, 0, STREAM_JUDGE + side);

			r = views_apply(views, &image, rng, side,
				input + ((size_t)side * batch + i) * pixels);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

/* embeddings (N_SIDES, n, width) */
static int embed_views(float *embeddings, struct vit *vit, const struct slot *slot,
	const struct recipe *recipe, const struct prep *prep, const struct image_source *source)
{
	_cleanup_(views_freep) struct views *views = NULL;
	_cleanup_(vit_plan_freep) struct vit_plan *plan = NULL;
	_cleanup_(freep) float *out = NULL;
	uint32_t batch = source->n < N_BATCH ? source->n : N_BATCH;
	size_t width = vit_shape(vit)->width;
	int r;

	if (batch == 0)
		return -EINVAL;
	out = malloc((size_t)N_SIDES * batch * width * sizeof(*out));
	if (!out)
		return -ENOMEM;
	r = views_new(&views, recipe, prep, source);
	if (r < 0)
		return r;
	r = vit_plan_new(&plan, vit, N_SIDES * batch, recipe->large_px);
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < source->n; i += batch) {
		uint32_t n = source->n - i < batch ? source->n - i : batch;

		r = draw(views, recipe, source, i, n, batch, vit_plan_input(plan));
		if (r < 0)
			return r;
		r = vit_forward(plan, slot, out);
		if (r < 0)
			return r;
		for (uint32_t side = 0; side < N_SIDES; side++)
			memcpy(embeddings + ((size_t)side * source->n + i) * width,
				out + (size_t)side * batch * width, n * width * sizeof(*out));
	}
	return 0;
}

/** One view among the other side's: is its twin the nearest, and by how much. */
struct standing {
	uint32_t n_found;
	double margin;
};

static void stand(struct standing *standing, const float *view, const float *others, uint32_t twin,
	uint32_t n, uint32_t width)
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
	standing->n_found += found;
	standing->margin += (own - mean) / fmax(deviation, MIN_DEVIATION);
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

int judge_rows(struct judgement *ret_judgement, float *rows, uint32_t n, uint32_t width)
{
	struct standing standing = { 0 };
	float rank;
	int r;

	if (n < 3)
		return -EINVAL;
	cosine_normalise(rows, rows, N_SIDES * n, width);
	for (uint32_t i = 0; i < N_SIDES * n; i++)
		stand(&standing, rows + (size_t)i * width, i < n ? rows + (size_t)n * width : rows,
			i % n, n, width);
	r = effective_rank(&rank, rows, N_SIDES * n, width);
	if (r < 0)
		return r;
	*ret_judgement = (struct judgement){
		.n = n,
		.retrieval = (float)standing.n_found / (float)(N_SIDES * n),
		.margin = (float)(standing.margin / (N_SIDES * n)),
		.effective_rank = rank,
	};
	return 0;
}

int judge_views(struct judgement *ret_judgement, struct vit *vit, const struct slot *slot,
	const struct recipe *recipe, const struct prep *prep, const struct image_source *source,
	uint32_t max_images)
{
	struct embed_subset subset;
	struct image_source images = embed_subset_source(&subset, source, max_images);
	uint32_t width = vit_shape(vit)->width;
	struct recipe served = *recipe;
	_cleanup_(freep) float *rows =
		malloc(((size_t)N_SIDES * images.n * width + 1) * sizeof(*rows));
	int r;

	if (!rows)
		return -ENOMEM;
	/* A large input is learnt at its half: what counts is the size it is served at. */
	served.large_px = prep->input_px;
	served.n_small = 0;
	r = embed_views(rows, vit, slot, &served, prep, &images);
	if (r < 0)
		return r;
	return judge_rows(ret_judgement, rows, images.n, width);
}
