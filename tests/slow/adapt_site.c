/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "adapt_site.h"
#include "base/clock.h"
#include "classify/linear.h"
#include "site/gate.h"

#define FIFTH 5u
#define EPISODE_SEED 1u
#define N_RUN 64u /* images between two looks at the clock */

/* In the learning part. */
static uint32_t place_of(bool judged, uint32_t i)
{
	return judged ? i * FIFTH + FIFTH - 1 : i + i / (FIFTH - 1);
}

static int share_get(void *owner, uint32_t i, struct image_view *ret_view)
{
	const struct adapt_share *share = owner;
	const uint32_t at = place_of(share->judged, i);

	if (at >= share->folder->n)
		return -ERANGE;
	*ret_view = image_view(share->folder->images[at]);
	return 0;
}

struct image_source adapt_site_source(struct adapt_site *site, bool judged)
{
	uint32_t n = site->learn->n / FIFTH;

	return (struct image_source){
		.owner = &site->shares[judged],
		.n = judged ? n : site->learn->n - n,
		.get = share_get,
		.manifest = site->learn->manifest,
		.labels = site->shares[judged].labels,
		.n_classes = site->n_classes,
	};
}

/* For what learns from them. */
static int label_shares(struct adapt_site *site)
{
	for (unsigned judged = 0; judged < 2; judged++) {
		struct adapt_share *share = &site->shares[judged];
		const uint32_t n =
			judged ? site->learn->n / FIFTH : site->learn->n - site->learn->n / FIFTH;

		share->labels = malloc(n * sizeof(*share->labels));
		if (!share->labels)
			return -ENOMEM;
		for (uint32_t i = 0; i < n; i++)
			share->labels[i] = site->classes[place_of(judged, i)];
	}
	return 0;
}

/* A class may lack images in one of the parts; the held part's numbers are the figures'. */
static int number_classes(struct adapt_site *site)
{
	const struct folder *learn = site->learn, *held = site->held;
	_cleanup_(freep) uint32_t *numbers = calloc(learn->n_names, sizeof(*numbers));

	site->classes = malloc(learn->n * sizeof(*site->classes));
	if (!numbers || !site->classes)
		return -ENOMEM;
	site->n_classes = held->n_names;
	for (uint32_t c = 0; c < learn->n_names; c++) {
		uint32_t same = 0;

		while (same < held->n_names && strcmp(held->names[same], learn->names[c]) != 0)
			same++;
		numbers[c] = same < held->n_names ? same : site->n_classes++;
	}
	for (uint32_t i = 0; i < learn->n; i++)
		site->classes[i] = numbers[learn->labels[i]];
	return label_shares(site);
}

static void put_hex(char ret_text[17], const struct digest *digest)
{
	char hex[DIGEST_HEX_CHARS + 1];

	digest_to_hex(digest, hex);
	(void)snprintf(ret_text, 17, "%.16s", hex);
}

static void name_site(struct adapt_site *site, const char *path)
{
	struct digest both[2] = { site->learn->manifest, site->held->manifest };
	struct digest digest = digest_of(both, sizeof(both));
	size_t n = strlen(path), begin;

	while (n > 1 && path[n - 1] == '/')
		n--;
	for (begin = n; begin > 0 && path[begin - 1] != '/';)
		begin--;
	(void)snprintf(site->name, sizeof(site->name), "%.*s", (int)(n - begin), path + begin);
	/* Columns of a CSV file and names of files. */
	for (char *c = site->name; *c; c++)
		if (*c == ',' || *c == '"' || *c == '-')
			*c = '_';
	put_hex(site->images, &digest);
}

int adapt_site_open(struct adapt_site *site, struct vit *vit, struct slot *slot, const char *path,
	uint32_t max_shorter, struct diag *diag)
{
	int r;

	*site = (struct adapt_site){ .vit = vit, .slot = slot };
	r = folder_open(&site->learn, path, FOLDER_LEARN, max_shorter, diag);
	if (r == 0)
		r = folder_open(&site->held, path, FOLDER_HELD, max_shorter, diag);
	if (r < 0)
		return r;
	if (site->held->n_names < 2 || site->learn->n < FIFTH)
		return diag_set(diag, EINVAL, "%s: no folder of class folders", path);
	for (unsigned judged = 0; judged < 2; judged++)
		site->shares[judged] = (struct adapt_share){ site->learn, judged, NULL };
	name_site(site, path);
	return number_classes(site);
}

void adapt_site_done(struct adapt_site *site)
{
	folder_free(site->learn);
	folder_free(site->held);
	free(site->classes);
	free(site->shares[0].labels);
	free(site->shares[1].labels);
	*site = (struct adapt_site){ 0 };
}

int adapt_recipe(struct recipe *ret_recipe, const struct vit *vit, const struct prep *prep,
	uint32_t n_images, uint32_t steps, const char *const *fields, uint32_t n_fields,
	struct diag *diag)
{
	enum recipe_objective objective = RECIPE_SWAV;
	struct recipe recipe;
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < n_fields; i++)
		r = recipe_read_objective(&objective, fields[i], diag);
	if (r < 0)
		return r;
	recipe = recipe_for(vit, prep, n_images, objective, steps);
	for (uint32_t i = 0; r == 0 && i < n_fields; i++)
		r = recipe_read(&recipe, fields[i], diag);
	if (r == 0)
		*ret_recipe = recipe;
	return r;
}

struct adapt_row adapt_site_row(const struct adapt_site *site, const char *arm,
	const struct prep *prep, const struct recipe *recipe)
{
	struct adapt_row row = {
		.px = prep->input_px,
		.density = 1,
		.lowest_density = 1,
		.entropy = -1,
		.neighbours = -1,
		.passed = -1,
		.recipe = "-",
	};
	struct digest digest;

	(void)snprintf(row.set, sizeof(row.set), "%s", site->name);
	(void)snprintf(row.arm, sizeof(row.arm), "%s", arm);
	(void)snprintf(row.resize, sizeof(row.resize), "%s",
		prep->resize == PREP_SQUASH ? "squash" : "crop");
	(void)snprintf(row.images, sizeof(row.images), "%s", site->images);
	put_hex(row.base, vit_digest(site->vit));
	if (recipe) {
		digest = recipe_digest(recipe);
		put_hex(row.recipe, &digest);
		row.seed = recipe->seed;
	}
	return row;
}

/** Some images of a folder, one after the other. */
struct run {
	struct folder *folder;
	uint32_t first;
};

static int run_get(void *owner, uint32_t i, struct image_view *ret_view)
{
	const struct run *run = owner;

	*ret_view = image_view(run->folder->images[run->first + i]);
	return 0;
}

static int compare_double(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* In runs, for the median of what an image took: others may use the machine now and then. */
static int embed_timed(
	float *rows, double *ret_ms, struct adapt_site *site, const struct prep *prep)
{
	uint32_t n = site->held->n, n_runs = (n + N_RUN - 1) / N_RUN;
	_cleanup_(freep) double *ms = malloc(n_runs * sizeof(*ms));
	size_t width = vit_shape(site->vit)->width;

	if (!ms)
		return -ENOMEM;
	for (uint32_t i = 0; i < n_runs; i++) {
		struct run run = { site->held, i * N_RUN };
		struct image_source some = {
			.owner = &run,
			.n = n - run.first < N_RUN ? n - run.first : N_RUN,
			.get = run_get,
		};
		uint64_t start = clock_now_ns();
		int r = judge_embed(rows + run.first * width, site->vit, site->slot, prep, &some);

		if (r < 0)
			return r;
		ms[i] = (double)(clock_now_ns() - start) / (double)NS_PER_MS / some.n;
	}
	qsort(ms, n_runs, sizeof(*ms), compare_double);
	*ret_ms = ms[n_runs / 2];
	return 0;
}

int adapt_site_embed_held(float **ret_rows, double *ret_ms, struct adapt_site *site,
	const struct mask *mask, const struct prep *prep)
{
	size_t width = vit_shape(site->vit)->width;
	_cleanup_(freep) float *rows = malloc((size_t)site->held->n * width * sizeof(*rows));
	int r;

	if (!rows)
		return -ENOMEM;
	r = slot_apply(site->slot, mask);
	if (r == 0)
		r = embed_timed(rows, ret_ms, site, prep);
	if (r < 0)
		return r;
	*ret_rows = TAKE_PTR(rows);
	return 0;
}

int adapt_site_embed(float **ret_rows, double *ret_ms, struct adapt_site *site,
	const struct mask *mask, const struct prep *prep)
{
	struct image_source learn = folder_source(site->learn);
	size_t width = vit_shape(site->vit)->width;
	_cleanup_(freep) float *rows =
		malloc(((size_t)learn.n + site->held->n) * width * sizeof(*rows));
	int r;

	if (!rows)
		return -ENOMEM;
	r = slot_apply(site->slot, mask);
	if (r == 0)
		r = judge_embed(rows, site->vit, site->slot, prep, &learn);
	if (r == 0)
		r = embed_timed(rows + learn.n * width, ret_ms, site, prep);
	if (r < 0)
		return r;
	*ret_rows = TAKE_PTR(rows);
	return 0;
}

static int probe(struct adapt_row *row, struct adapt_detail *detail, const struct adapt_site *site,
	const float *rows, uint32_t width)
{
	_cleanup_(linear_freep) struct linear *linear = NULL;
	const float *held = rows + (size_t)site->learn->n * width;
	uint32_t n_right = 0;
	int r;

	detail->n = site->held->n;
	detail->linear_right = malloc(site->held->n);
	if (!detail->linear_right)
		return -ENOMEM;
	r = linear_fit(&linear, rows, site->classes, site->learn->n, width, site->n_classes);
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < site->held->n; i++) {
		detail->linear_right[i] =
			linear_classify(linear, held + (size_t)i * width) == site->held->labels[i];
		n_right += detail->linear_right[i];
	}
	row->linear = (double)n_right / site->held->n;
	return 0;
}

int adapt_site_figures(struct figures *ret_figures, struct figures_detail *ret_detail,
	const struct adapt_site *site, const float *held, uint32_t width)
{
	return figures_compute(ret_figures, ret_detail, held, site->held->labels, site->held->n,
		width, site->held->n_names, EPISODE_SEED);
}

int adapt_site_measure(struct adapt_row *row, struct adapt_detail *ret_detail,
	const struct adapt_site *site, const float *rows, uint32_t width)
{
	struct adapt_detail detail = { 0 };
	struct figures figures;
	int r;

	r = adapt_site_figures(
		&figures, &detail.figures, site, rows + (size_t)site->learn->n * width, width);
	if (r == 0)
		r = probe(row, &detail, site, rows, width);
	if (r < 0) {
		adapt_detail_done(&detail);
		return r;
	}
	row->n_learn = site->learn->n;
	row->n_held = site->held->n;
	row->n_classes = site->held->n_names;
	row->knn = figures.knn;
	row->shot1 = figures.shot1;
	row->shot1_ci = figures.shot1_ci;
	row->shot5 = figures.shot5;
	row->shot5_ci = figures.shot5_ci;
	*ret_detail = detail;
	return 0;
}

/* The gate's fifth as it is served: (n, width). */
static int embed_judged(
	float **ret_rows, struct adapt_site *site, const struct mask *mask, const struct prep *prep)
{
	struct image_source source = adapt_site_source(site, true);
	size_t width = vit_shape(site->vit)->width;
	_cleanup_(freep) float *rows = malloc((size_t)source.n * width * sizeof(*rows));
	int r;

	if (!rows)
		return -ENOMEM;
	r = slot_apply(site->slot, mask);
	if (r == 0)
		r = judge_embed(rows, site->vit, site->slot, prep, &source);
	if (r < 0)
		return r;
	*ret_rows = TAKE_PTR(rows);
	return 0;
}

int adapt_site_spread(struct adapt_row *row, struct adapt_site *site, const struct mask *mask,
	const struct head *head, const struct recipe *recipe, const struct prep *prep)
{
	uint32_t n = adapt_site_source(site, true).n, width = vit_shape(site->vit)->width;
	_cleanup_(freep) float *frozen = NULL, *adapted = NULL;
	float share;
	int r;

	row->entropy = row->neighbours = -1;
	if (n < 2 * JUDGE_NEIGHBOURS)
		return 0;
	r = embed_judged(&frozen, site, NULL, prep);
	if (r == 0)
		r = embed_judged(&adapted, site, mask, prep);
	if (r == 0)
		r = judge_neighbours(&share, adapted, width, frozen, width, n);
	if (r < 0)
		return r;
	row->neighbours = (double)share;
	if (!head)
		return 0;
	r = judge_entropy(&share, head, recipe->temperature, adapted, n);
	if (r == 0)
		row->entropy = (double)share;
	return r;
}

static struct judgement_row judgement_of(const struct judgement *judgement)
{
	return (struct judgement_row){ .n = judgement->n,
		.retrieval = judgement->retrieval,
		.margin = judgement->margin,
		.effective_rank = judgement->effective_rank,
		.retrieval_error = judgement->retrieval_error,
		.margin_error = judgement->margin_error };
}

static int look(struct judgement *ret_judgement, struct judge_image *images,
	struct adapt_site *site, const struct mask *mask, const struct recipe *recipe,
	const struct prep *prep)
{
	struct image_source source = adapt_site_source(site, true);
	int r = slot_apply(site->slot, mask);

	if (r < 0)
		return r;
	if (source.n < JUDGE_MIN_IMAGES) {
		*ret_judgement = (struct judgement){ .n = source.n };
		return 0;
	}
	return judge_views(ret_judgement, images, site->vit, site->slot, recipe, prep, &source);
}

static void decide(
	struct adapt_row *row, const struct adapt_site *site, const struct judgement *judgement)
{
	struct version_row version = {
		.density = row->density,
		.lowest_density = row->lowest_density,
		.loss_ratio = row->loss_ratio,
		.n_flips = row->n_flips,
		.n_elements = vit_layout(site->vit)->n_elements,
		.frozen = judgement_of(&site->frozen),
		.candidate = judgement_of(judgement),
	};

	/* What is not a number is a figure that was measured. */
	version.candidate.has_entropy = !(row->entropy < 0);
	version.candidate.entropy = (float)row->entropy;
	version.candidate.has_neighbours = !(row->neighbours < 0);
	version.candidate.neighbours = (float)row->neighbours;
	gate_decide(&version);
	row->passed = version.passed;
	(void)snprintf(row->reasons, sizeof(row->reasons), "%s", version.reasons);
	for (char *c = strchr(row->reasons, '\n'); c; c = strchr(c, '\n'))
		*c = ';';
}

int adapt_site_judge(struct adapt_row *row, struct adapt_site *site, const struct mask *mask,
	const struct recipe *recipe, const struct prep *prep)
{
	struct judge_image images[JUDGE_MAX_IMAGES];
	struct judgement judgement;
	int r;

	/* Both must see the same views, which the recipe's seed draws. */
	if (site->frozen_px != prep->input_px || site->frozen_seed != recipe->seed) {
		r = look(&site->frozen, site->frozen_images, site, NULL, recipe, prep);
		if (r < 0)
			return r;
		site->frozen_px = prep->input_px;
		site->frozen_seed = recipe->seed;
	}
	judgement = site->frozen;
	if (mask) {
		r = look(&judgement, images, site, mask, recipe, prep);
		if (r < 0)
			return r;
		if (judgement.n >= JUDGE_MIN_IMAGES)
			judge_compare(&judgement, images, site->frozen_images);
		decide(row, site, &judgement);
	}
	row->base_retrieval = (double)site->frozen.retrieval;
	row->base_margin = (double)site->frozen.margin;
	row->base_rank = (double)site->frozen.effective_rank;
	row->retrieval = (double)judgement.retrieval;
	row->margin = (double)judgement.margin;
	row->rank = (double)judgement.effective_rank;
	return 0;
}
