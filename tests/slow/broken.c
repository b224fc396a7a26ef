/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The gate against masks that were broken on purpose, on real images: NEU at 96 px, three of each
 * kind, beside a good mask. Prints what the gate sees of each; all broken ones have to be held and
 * the good one has to pass.
 *
 *   broken [--quick]   (one of each kind)
 *   broken --tiny      (on an untrained network with a flaw, and rendered images: seconds)
 *
 * Exit 0: so it is, 1: it is not, 77: no model or no images here.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/rng.h"
#include "fixture/flaw.h"
#include "learn/folder.h"
#include "learn/judge.h"
#include "learn/round_state.h"
#include "mask/scores.h"
#include "model/random.h"
#include "site/gate.h"

#define INPUT_PX 96u
#define MAX_LEARN 320u /* images */
#define MAX_HELD 256u

/** Images of a folder's part, evenly spaced; or rendered ones. */
struct share {
	struct folder *folder; /* whose the images are; NULL: they are its own */
	struct image **images; /* (n_all) */
	uint32_t n, n_all;
	struct digest manifest;
};

struct bench {
	struct base *base;
	struct vit *vit;
	struct slot *slot;
	struct prep prep;
	struct recipe recipe;
	struct share learn, held, other;
	bool is_tiny;
	uint32_t steps;
	struct judge_image frozen_images[JUDGE_MAX_IMAGES];
	struct judgement frozen;
	float *frozen_rows; /* (held.n, width) */
	unsigned n_wrong;
};

/** One candidate: a mask, and the head where it was learnt with one. */
struct candidate {
	struct mask *mask;
	struct head head;
	float *head_values;
	float loss_ratio; /* 0: it was not learnt here */
};

static void candidate_done(struct candidate *candidate)
{
	mask_free(candidate->mask);
	free(candidate->head_values);
}

static int complain(int r, const struct diag *diag)
{
	fprintf(stderr, "broken: %s\n", diag->text[0] ? diag->text : strerror(-r));
	return r;
}

static int share_get(void *owner, uint32_t i, struct image_view *ret_view)
{
	const struct share *share = owner;

	*ret_view = image_view(share->images[(uint64_t)i * share->n_all / share->n]);
	return 0;
}

static struct image_source share_source(struct share *share)
{
	return (struct image_source){
		.owner = share, .n = share->n, .get = share_get, .manifest = share->manifest
	};
}

static int share_open(struct share *share, const char *shared, const char *set,
	enum folder_part part, uint32_t n_max, struct diag *diag)
{
	char path[4096];
	int r;

	(void)snprintf(path, sizeof(path), "%s/data/%s", shared, set);
	r = folder_open(&share->folder, path, part, 2 * INPUT_PX, diag);
	if (r < 0)
		return r;
	share->images = share->folder->images;
	share->n_all = share->folder->n;
	share->n = share->n_all < n_max ? share->n_all : n_max;
	share->manifest = share->folder->manifest;
	return 0;
}

static void share_close(struct share *share)
{
	for (uint32_t i = 0; i < share->n_all && !share->folder && share->images; i++)
		image_free(share->images[i]);
	if (share->folder)
		folder_free(share->folder);
	else
		free(share->images);
}

static int share_render(struct share *share, uint32_t first, uint32_t n)
{
	share->images = calloc(n, sizeof(*share->images));
	if (!share->images)
		return -ENOMEM;
	share->n = share->n_all = n;
	share->manifest = digest_of(&first, sizeof(first));
	for (uint32_t i = 0; i < n; i++) {
		int r = image_new(&share->images[i], FLAW_SIDE, FLAW_SIDE, 3);

		if (r < 0)
			return r;
		flaw_render(share->images[i]->pixels, first + i);
	}
	return 0;
}

/* A file that is read and gone: a base borrows nothing of it. */
static int load_flawed(struct base **ret_base, struct diag *diag)
{
	char path[] = "/tmp/kamen-broken-XXXXXX";
	_cleanup_(closep) int fd = mkstemp(path);
	_cleanup_(freep) void *data = NULL;
	size_t n_bytes;
	int r;

	if (fd < 0)
		return -errno;
	r = random_vit_encode(&flaw_shape, 11, &data, &n_bytes);
	if (r == 0)
		r = flaw_plant(data, n_bytes);
	if (r == 0)
		r = blob_write(AT_FDCWD, path, data, n_bytes);
	if (r == 0)
		r = base_load(ret_base, path, diag);
	(void)unlink(path);
	return r;
}

static int open_tiny(struct bench *bench)
{
	struct diag diag = { "" };
	int r;

	bench->is_tiny = true;
	r = load_flawed(&bench->base, &diag);
	if (r == 0)
		r = vit_new(&bench->vit, bench->base, NULL, &diag);
	if (r == 0)
		r = vit_slot_new(&bench->slot, bench->vit, SLOT_INFER);
	if (r == 0)
		r = share_render(&bench->learn, 0, 128);
	if (r == 0)
		r = share_render(&bench->held, 1000, 256);
	if (r < 0)
		return complain(r, &diag);
	bench->prep = vit_native_prep(bench->vit);
	bench->recipe = recipe_default(bench->vit, &bench->prep, bench->learn.n);
	bench->recipe.batch = 16;
	bench->recipe.precision = PRECISION_F32; /* as far as it goes, the same everywhere */
	bench->steps = 60;
	return 0;
}

static int open_bench(struct bench *bench, const char *shared)
{
	struct diag diag = { "" };
	char path[4096];
	int r;

	(void)snprintf(
		path, sizeof(path), "%s/models/vit_tiny_patch16_224/model.safetensors", shared);
	r = base_load(&bench->base, path, &diag);
	if (r == 0)
		r = vit_new(&bench->vit, bench->base, NULL, &diag);
	if (r == 0)
		r = vit_slot_new(&bench->slot, bench->vit, SLOT_INFER);
	if (r == 0)
		r = share_open(&bench->learn, shared, "neu", FOLDER_LEARN, MAX_LEARN, &diag);
	if (r == 0)
		r = share_open(&bench->held, shared, "neu", FOLDER_HELD, MAX_HELD, &diag);
	if (r == 0)
		r = share_open(
			&bench->other, shared, "cifar10_test", FOLDER_LEARN, MAX_LEARN, &diag);
	if (r < 0)
		return complain(r, &diag);
	bench->prep = vit_native_prep(bench->vit);
	bench->prep.input_px = INPUT_PX;
	bench->prep.resize = PREP_SQUASH;
	bench->recipe = recipe_default(bench->vit, &bench->prep, bench->learn.n);
	bench->recipe.batch = 32;
	bench->steps = 60;
	return 0;
}

static void close_bench(struct bench *bench)
{
	free(bench->frozen_rows);
	share_close(&bench->other);
	share_close(&bench->held);
	share_close(&bench->learn);
	slot_free(bench->slot);
	vit_free(bench->vit);
	base_free(bench->base);
}

/* ---- what the daemon's learner measures */

static int embed(float **ret_rows, struct bench *bench)
{
	struct image_source source = share_source(&bench->held);
	size_t width = vit_shape(bench->vit)->width;
	float *rows = malloc(source.n * width * sizeof(*rows));
	int r;

	if (!rows)
		return -ENOMEM;
	r = judge_embed(rows, bench->vit, bench->slot, &bench->prep, &source);
	if (r < 0)
		free(rows);
	else
		*ret_rows = rows;
	return r;
}

static int look(struct judgement *ret_judgement, struct judge_image *images, struct bench *bench,
	const struct mask *mask)
{
	struct image_source source = share_source(&bench->held);
	int r = slot_apply(bench->slot, mask);

	return r < 0 ? r
		     : judge_views(ret_judgement, images, bench->vit, bench->slot, &bench->recipe,
			       &bench->prep, &source);
}

static struct judgement_row row_of(const struct judgement *judgement)
{
	return (struct judgement_row){ .n = judgement->n,
		.retrieval = judgement->retrieval,
		.margin = judgement->margin,
		.effective_rank = judgement->effective_rank,
		.retrieval_error = judgement->retrieval_error,
		.margin_error = judgement->margin_error };
}

static int measure(struct version_row *row, struct bench *bench, const struct candidate *candidate)
{
	const struct mask_layout *layout = vit_layout(bench->vit);
	struct judge_image images[JUDGE_MAX_IMAGES];
	_cleanup_(mask_freep) struct mask *all = NULL;
	_cleanup_(freep) float *rows = NULL;
	struct judgement judgement;
	int r;

	r = mask_new(&all, layout);
	if (r == 0)
		r = look(&judgement, images, bench, candidate->mask);
	if (r == 0)
		r = embed(&rows, bench);
	if (r < 0)
		return r;
	judge_compare(&judgement, images, bench->frozen_images);
	*row = (struct version_row){
		.density = mask_density(candidate->mask),
		.lowest_density = mask_lowest_density(candidate->mask),
		.loss_ratio = (double)candidate->loss_ratio,
		.n_elements = layout->n_elements,
		.n_flips = mask_distance(candidate->mask, all),
		.frozen = row_of(&bench->frozen),
		.candidate = row_of(&judgement),
	};
	row->candidate.has_neighbours = true;
	r = judge_neighbours(&row->candidate.neighbours, rows, vit_shape(bench->vit)->width,
		bench->frozen_rows, vit_shape(bench->vit)->width, bench->held.n);
	if (r < 0 || !candidate->head_values)
		return r;
	row->candidate.has_entropy = true;
	return judge_entropy(&row->candidate.entropy, &candidate->head, bench->recipe.temperature,
		rows, bench->held.n);
}

static void print_row(const char *name, const struct version_row *row)
{
	const struct judgement_row *c = &row->candidate;
	char reasons[sizeof(row->reasons)];

	printf("%-18s %-6s retrieval %.3f +- %.3f  margin %6.3f +- %.3f  rank %5.1f  "
	       "entropy %5.3f  neighbours %.3f  density %.5f lowest %.3f\n",
		name, row->passed ? "passes" : "held", (double)c->retrieval,
		(double)c->retrieval_error, (double)c->margin, (double)c->margin_error,
		(double)c->effective_rank, c->has_entropy ? (double)c->entropy : (double)NAN,
		(double)c->neighbours, row->density, row->lowest_density);
	memcpy(reasons, row->reasons, sizeof(reasons));
	for (char *save = NULL, *line = strtok_r(reasons, "\n", &save); line;
		line = strtok_r(NULL, "\n", &save))
		printf("    %s\n", line);
	(void)fflush(stdout);
}

static int judge(struct bench *bench, const char *kind, unsigned i,
	const struct candidate *candidate, bool good)
{
	struct version_row row;
	char name[64];
	int r;

	r = measure(&row, bench, candidate);
	if (r < 0)
		return r;
	gate_decide(&row);
	(void)snprintf(name, sizeof(name), "%s %u", kind, i);
	print_row(name, &row);
	bench->n_wrong += row.passed != good;
	return 0;
}

static int judge_frozen(struct bench *bench)
{
	int r = look(&bench->frozen, bench->frozen_images, bench, NULL);

	if (r == 0)
		r = embed(&bench->frozen_rows, bench);
	if (r < 0)
		return r;
	printf("frozen: %u images, retrieval %.3f, margin %.3f, rank %.1f\n", bench->frozen.n,
		(double)bench->frozen.retrieval, (double)bench->frozen.margin,
		(double)bench->frozen.effective_rank);
	return 0;
}

/* ---- learnt ones */

static int take(struct candidate *ret_candidate, const struct round *round, float loss_ratio)
{
	const struct mask *mask = round_mask(round);
	const struct head *head = round_head(round);
	size_t n = head_size(head->width, head->dim, head->n_prototypes);
	int r;

	r = mask_new(&ret_candidate->mask, mask->layout);
	if (r < 0)
		return r;
	memcpy(ret_candidate->mask->words, mask->words,
		mask->layout->n_words * sizeof(*mask->words));
	memcpy(ret_candidate->mask->n_on, mask->n_on,
		mask->layout->n_tensors * sizeof(*mask->n_on));
	ret_candidate->head_values = malloc(n * sizeof(float));
	if (!ret_candidate->head_values)
		return -ENOMEM;
	memcpy(ret_candidate->head_values, head->weight, n * sizeof(float));
	ret_candidate->head =
		head_map(ret_candidate->head_values, head->width, head->dim, head->n_prototypes);
	ret_candidate->loss_ratio = loss_ratio;
	return 0;
}

/* By the recipe, so that a score may travel so far. */
static int learn(struct candidate *ret_candidate, struct bench *bench, struct share *from,
	uint64_t seed, uint32_t steps, float travel)
{
	struct image_source source = share_source(from);
	_cleanup_(round_freep) struct round *round = NULL;
	struct recipe recipe = bench->recipe;
	struct round_progress progress;
	struct diag diag = { "" };
	int r;

	recipe.seed = seed;
	recipe.steps = steps;
	recipe.score_lr = 2 * travel / (float)steps;
	r = round_new(&round, bench->vit, &recipe, &bench->prep, &source, &diag);
	if (r < 0)
		return complain(r, &diag);
	do
		r = round_step(round, &progress);
	while (r > 0);
	return r < 0 ? r : take(ret_candidate, round, progress.loss_ratio);
}

/*
 * Momentum SGD divided per tensor by its running RMS, which flips the weights of largest gradient
 * first, and those carry the model (design.md section 5). The round's own step moves nothing: its
 * rate is next to none.
 */
static void rms_step(struct round *round, float *scores, float *velocities, double *squares,
	uint32_t step, float lr)
{
	const struct mask_layout *layout = vit_layout(round->vit);

	/* No bit has moved since: the mask is still the one that it is the gradient of. */
	scores_backward(round->grad, round->grad, vit_weights(round->vit), round->mask,
		round->recipe.alpha_term);
	for (unsigned t = 0; t < layout->n_tensors; t++) {
		const struct mask_tensor *tensor = &layout->tensors[t];
		const float *grad = round->grad + tensor->offset;
		double sum = 0, rms;

		for (size_t i = 0; i < tensor->n; i++)
			sum += (double)grad[i] * (double)grad[i];
		squares[t] = .9 * squares[t] + .1 * sum / (double)tensor->n;
		rms = sqrt(squares[t] / (1 - pow(.9, step)));
		for (size_t i = 0; i < tensor->n; i++) {
			size_t at = tensor->offset + i;

			velocities[at] = .9f * velocities[at] + grad[i];
			scores[at] -= lr * velocities[at] / (float)fmax(rms, 1e-20);
		}
	}
	memcpy(round->scores, scores, layout->n_elements * sizeof(*scores));
	round_take_scores(round);
}

static int ruin(struct candidate *ret_candidate, struct bench *bench, uint64_t seed, uint32_t steps,
	float lr)
{
	size_t n = vit_layout(bench->vit)->n_elements;
	struct image_source source = share_source(&bench->learn);
	_cleanup_(freep) float *scores = malloc(n * sizeof(*scores));
	_cleanup_(freep) float *velocities = calloc(n, sizeof(*velocities));
	_cleanup_(freep) double *squares =
		calloc(vit_layout(bench->vit)->n_tensors, sizeof(*squares));
	_cleanup_(round_freep) struct round *round = NULL;
	struct recipe recipe = bench->recipe;
	struct round_progress progress;
	struct diag diag = { "" };
	int r;

	if (!scores || !velocities || !squares)
		return -ENOMEM;
	recipe.seed = seed;
	recipe.steps = steps;
	recipe.optimiser = RECIPE_SGD;
	recipe.score_lr = 1e-9f;
	r = round_new(&round, bench->vit, &recipe, &bench->prep, &source, &diag);
	if (r < 0)
		return complain(r, &diag);
	for (size_t i = 0; i < n; i++)
		scores[i] = recipe.score_init;
	for (uint32_t step = 1;; step++) {
		r = round_step(round, &progress);
		if (r < 0)
			return r;
		rms_step(round, scores, velocities, squares, step, lr);
		if (r == 0)
			return take(ret_candidate, round, progress.loss_ratio);
	}
}

/* ---- made ones */

/* Drops this share of the tensors from first to last, by a coin of the seed. */
static int drop(struct candidate *ret_candidate, struct bench *bench, uint32_t seed, unsigned first,
	unsigned last, float share)
{
	const struct mask_layout *layout = vit_layout(bench->vit);
	int r = mask_new(&ret_candidate->mask, layout);

	if (r < 0)
		return r;
	for (unsigned t = first; t <= last; t++) {
		struct rng rng = rng_stream(seed, t, 0, 0);

		for (size_t i = 0; i < layout->tensors[t].n; i++)
			if (rng_uniform(&rng) < share)
				mask_put(ret_candidate->mask, t, i, false);
	}
	return 0;
}

/* Most of a block; the last block's way into the class token; a bit of everything in all blocks. */
static int collapse(struct candidate *ret_candidate, struct bench *bench, unsigned i)
{
	unsigned n = vit_layout(bench->vit)->n_tensors, of_block = n / vit_shape(bench->vit)->depth;

	unsigned first = bench->is_tiny ? 0 : 2 * of_block;

	if (i == 1)
		return drop(ret_candidate, bench, 1, first, first + of_block - 1, .95f);
	if (i == 2)
		return drop(ret_candidate, bench, 2, n - of_block, n - 1, .98f);
	return drop(ret_candidate, bench, 3, 0, n - 1, .35f);
}

enum kind { GOOD, RANDOM, COLLAPSED, OTHER, OVERTRAINED, RUINED, N_KINDS };

static int make(struct candidate *ret_candidate, struct bench *bench, enum kind kind, unsigned i)
{
	unsigned n = vit_layout(bench->vit)->n_tensors;

	switch (kind) {
	case GOOD:
		if (bench->is_tiny)
			return flaw_mend(&ret_candidate->mask, bench->vit, FLAW_CHANNEL);
		return learn(ret_candidate, bench, &bench->learn, i, bench->steps, 1.5f);
	case RANDOM:
		return drop(ret_candidate, bench, 100 + i, 0, n - 1, .02f);
	case COLLAPSED:
		return collapse(ret_candidate, bench, i);
	case OTHER:
		/* All sites of the tiny network have its flaw: one that has another. */
		if (bench->is_tiny)
			return flaw_mend(&ret_candidate->mask, bench->vit, FLAW_CHANNEL + i);
		return learn(ret_candidate, bench, &bench->other, i, bench->steps, 1.5f);
	case OVERTRAINED:
		return learn(ret_candidate, bench, &bench->learn, i, bench->steps, 4.5f);
	case RUINED:
		return ruin(ret_candidate, bench, i, bench->steps, bench->is_tiny ? .01f : .004f);
	default:
		return -EINVAL;
	}
}

static int run(struct bench *bench, unsigned n_each)
{
	static const char *const names[] = { "good", "random bits", "collapsed", "another site's",
		"overtrained", "RMS-divided SGD" };
	int r = judge_frozen(bench);

	for (unsigned kind = GOOD; kind < N_KINDS && r == 0; kind++)
		for (unsigned i = 1; i <= (kind == GOOD ? 1 : n_each) && r == 0; i++) {
			_cleanup_(candidate_done) struct candidate candidate = { 0 };

			r = make(&candidate, bench, kind, i);
			/* Learnt elsewhere: its loss and head are not this site's. */
			if (kind == OTHER) {
				free(TAKE_PTR(candidate.head_values));
				candidate.loss_ratio = 0;
			}
			if (r == 0)
				r = judge(bench, names[kind], i, &candidate, kind == GOOD);
		}
	printf("%u decisions are wrong\n", bench->n_wrong);
	return r;
}

int main(int argc, char **argv)
{
	const char *shared = getenv("KAMEN_SHARED");
	bool is_quick = argc > 1 && strcmp(argv[1], "--quick") == 0;
	bool is_tiny = argc > 1 && strcmp(argv[1], "--tiny") == 0;
	static struct bench bench;
	int r;

	r = is_tiny ? open_tiny(&bench) : open_bench(&bench, shared ? shared : "../shared");
	if (r == -ENOENT) {
		printf("skipped: neither $KAMEN_SHARED nor ../shared has model and images\n");
		close_bench(&bench);
		return 77;
	}
	if (r == 0)
		r = run(&bench, is_quick ? 1 : 3);
	if (r < 0)
		fprintf(stderr, "broken: %s\n", strerror(-r));
	close_bench(&bench);
	return r < 0 || bench.n_wrong > 0;
}
