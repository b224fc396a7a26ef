/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The main job on real images, in one process: learns NEU (contract.md's split) at 112 px (or N) on
 * the learning part and prints, on the held part, what the mask gains over the frozen model.
 *
 *   neu_gain [--px N] [--resize squash|crop] [--steps N] [--travel X] [--first SEED] [--seeds N] [--trace]
 *            [--objective NAME] [--recipe "NAME=VALUE ..."] [--memory BYTES] [DIR]
 *
 * --objective supervised learns from the names of DIR's class folders. --recipe changes what is left;
 * --memory is what the activations of a step may take.
 *
 * Exit 0: the average gain over frozen at this size reaches .03 / .13 / .05 (knn / shot1 / shot5),
 * 1: it does not, 77: no model or no images here.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "classify/figures.h"
#include "learn/folder.h"
#include "learn/judge.h"
#include "learn/round.h"
#include "mask/kmask.h"

#define INPUT_PX 112u
#define EPISODE_SEED 1u

static const struct {
	double knn, shot1, shot5;
} wanted = { .03, .13, .05 };

struct options {
	enum prep_resize resize;
	uint32_t px, steps, first_seed, n_seeds;
	float travel;
	bool trace;
	const char *dir, *objective, *recipe;
	size_t memory; /* 0: all of it */
};

/** One embedding of the held part, judged. */
struct outcome {
	struct figures figures;
	double ms_per_image;
};

struct study {
	struct options options;
	struct base *base;
	struct vit *vit;
	struct slot *slot;
	struct folder *learn, *held;
	struct prep small, native;
	struct judge_image frozen[JUDGE_MAX_IMAGES];
};

static int complain(int r, const struct diag *diag)
{
	fprintf(stderr, "neu_gain: %s\n", diag->text[0] ? diag->text : strerror(-r));
	return r;
}

static int open_study(struct study *study, const char *shared)
{
	struct diag diag = { "" };
	char path[4096];
	int r;

	(void)snprintf(
		path, sizeof(path), "%s/models/vit_tiny_patch16_224/model.safetensors", shared);
	r = base_load(&study->base, path, &diag);
	if (r == 0)
		r = vit_new(&study->vit, study->base, NULL, &diag);
	if (r == 0)
		r = vit_slot_new(&study->slot, study->vit, SLOT_INFER);
	if (study->options.dir)
		(void)snprintf(path, sizeof(path), "%s", study->options.dir);
	else
		(void)snprintf(path, sizeof(path), "%s/data/neu", shared);
	if (r == 0)
		r = folder_open(&study->learn, path, FOLDER_LEARN, 2 * study->options.px, &diag);
	if (r == 0)
		r = folder_open(&study->held, path, FOLDER_HELD, 2 * study->options.px, &diag);
	if (r < 0)
		return complain(r, &diag);
	study->native = vit_native_prep(study->vit);
	study->small = study->native;
	study->small.input_px = study->options.px;
	study->small.resize = study->options.resize;
	return 0;
}

static void close_study(struct study *study)
{
	folder_free(study->held);
	folder_free(study->learn);
	slot_free(study->slot);
	vit_free(study->vit);
	base_free(study->base);
}

static int evaluate(struct outcome *ret_outcome, struct study *study, const struct mask *mask,
	const struct prep *prep)
{
	struct image_source source = folder_source(study->held);
	uint32_t width = vit_shape(study->vit)->width;
	_cleanup_(freep) float *embeddings = malloc((size_t)source.n * width * sizeof(*embeddings));
	uint64_t start;
	int r;

	if (!embeddings)
		return -ENOMEM;
	r = slot_apply(study->slot, mask);
	if (r < 0)
		return r;
	start = clock_now_ns();
	r = judge_embed(embeddings, study->vit, study->slot, prep, &source);
	if (r < 0)
		return r;
	ret_outcome->ms_per_image = (double)(clock_now_ns() - start) / (double)NS_PER_MS / source.n;
	return figures_compute(&ret_outcome->figures, NULL, embeddings, study->held->labels,
		source.n, width, study->held->n_names, EPISODE_SEED);
}

static void print_outcome(const char *what, const struct outcome *outcome)
{
	printf("%-26s knn %.4f  shot1 %.4f +- %.4f  shot5 %.4f +- %.4f  %.2f ms/image\n", what,
		outcome->figures.knn, outcome->figures.shot1, outcome->figures.shot1_ci,
		outcome->figures.shot5, outcome->figures.shot5_ci, outcome->ms_per_image);
	(void)fflush(stdout);
}

/* What the gate goes by, which needs no label. No mask: the frozen model, which comes first. */
static int print_views(struct study *study, const struct mask *mask, const struct recipe *recipe)
{
	struct image_source source = folder_source(study->held);
	struct judge_image adapted[JUDGE_MAX_IMAGES];
	struct judgement judgement;
	int r = slot_apply(study->slot, mask);

	if (r == 0)
		r = judge_views(&judgement, mask ? adapted : study->frozen, study->vit, study->slot,
			recipe, &study->small, &source);
	if (r < 0)
		return r;
	if (mask)
		judge_compare(&judgement, adapted, study->frozen);
	printf("  views of %u images: retrieval %.3f +- %.3f, margin %.3f +- %.3f, "
	       "effective rank %.1f\n",
		judgement.n, judgement.retrieval, judgement.retrieval_error, judgement.margin,
		judgement.margin_error, judgement.effective_rank);
	(void)fflush(stdout);
	return 0;
}

/* Runs the round to its end; prints what it did. */
static int learn(struct round *round, const struct study *study, uint64_t seed)
{
	struct kmask_header header = { .base = *vit_digest(study->vit), .seed = seed };
	struct round_progress progress;
	uint64_t start = clock_now_ns(), warm = 0;
	void *data;
	size_t n_bytes;
	int r;

	do {
		r = round_step(round, &progress);
		if (r < 0)
			return r;
		if (progress.step == 1)
			warm = clock_now_ns();
		if (study->options.trace)
			printf("  step %u loss/lnK %.3f density %.5f lowest tensor %.3f\n",
				progress.step, progress.loss_ratio, progress.density,
				progress.lowest_density);
		(void)fflush(stdout);
	} while (r > 0);
	header.steps = progress.steps;
	r = kmask_encode(round_mask(round), &header, &data, &n_bytes);
	if (r < 0)
		return r;
	free(data);
	printf("seed %llu: %.1f s, %.2f s/step, loss/lnK %.3f, density %.5f (lowest tensor %.3f), "
	       "mask %zu bytes\n",
		(unsigned long long)seed, (double)(clock_now_ns() - start) / NS_PER_S,
		(double)(clock_now_ns() - warm) / NS_PER_S / (progress.steps - 1),
		progress.loss_ratio, progress.density, progress.lowest_density, n_bytes);
	return 0;
}

static int change_recipe(struct recipe *recipe, const struct study *study, struct diag *diag)
{
	const struct options *options = &study->options;
	int r = 0;

	if (options->objective) {
		r = recipe_set(recipe, "objective", options->objective, diag);
		if (r == 0)
			recipe_set_objective(recipe, recipe->objective);
	}
	if (r == 0 && options->recipe)
		r = recipe_read(recipe, options->recipe, diag);
	if (r == 0 && options->memory)
		recipe_fit(recipe, study->vit, options->memory);
	if (r == 0 && (options->objective || options->recipe || options->memory))
		printf("%s\nactivations: %zu MiB\n", recipe_text(recipe).text,
			recipe_tape_bytes(recipe, study->vit) >> 20);
	return r;
}

static int run_seed(struct figures *sum, struct study *study, uint64_t seed)
{
	_cleanup_(round_freep) struct round *round = NULL;
	struct image_source source = folder_source(study->learn);
	struct recipe recipe = recipe_default(study->vit, &study->small, source.n);
	struct outcome small, native;
	struct diag diag = { "" };
	int r;

	recipe.seed = seed;
	if (study->options.steps) {
		recipe.steps = study->options.steps;
		recipe.score_lr = recipe_score_lr(recipe.steps);
	}
	/* What is known to ruin a model: see what the gate's figures make of it. */
	if (study->options.travel > 0)
		recipe.score_lr = 2 * study->options.travel / (float)recipe.steps;
	r = change_recipe(&recipe, study, &diag);
	if (r == 0)
		r = round_new(&round, study->vit, &recipe, &study->small, &source, &diag);
	if (r == 0)
		r = learn(round, study, seed);
	if (r == 0)
		r = evaluate(&small, study, round_mask(round), &study->small);
	if (r == 0)
		r = evaluate(&native, study, round_mask(round), &study->native);
	if (r < 0)
		return complain(r, &diag);
	print_outcome("  adapted at size", &small);
	print_outcome("  adapted at native", &native);
	r = print_views(study, round_mask(round), &recipe);
	if (r < 0)
		return r;
	sum->knn += small.figures.knn;
	sum->shot1 += small.figures.shot1;
	sum->shot5 += small.figures.shot5;
	return 0;
}

static int run(struct study *study)
{
	struct figures sum = { 0 };
	struct outcome small, native;
	struct recipe recipe = recipe_default(study->vit, &study->small, study->learn->n);
	double n = study->options.n_seeds, knn, shot1, shot5;
	bool reached;
	int r;

	printf("%u images to learn from, %u held, %u classes; %s\n", study->learn->n,
		study->held->n, study->held->n_names, vit_isa(study->vit));
	r = evaluate(&small, study, NULL, &study->small);
	if (r == 0)
		r = evaluate(&native, study, NULL, &study->native);
	if (r < 0)
		return complain(r, &(struct diag){ "" });
	print_outcome("frozen at size", &small);
	print_outcome("frozen at native", &native);
	r = print_views(study, NULL, &recipe);
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < study->options.n_seeds; i++) {
		r = run_seed(&sum, study, study->options.first_seed + i);
		if (r < 0)
			return r;
	}
	knn = sum.knn / n - small.figures.knn;
	shot1 = sum.shot1 / n - small.figures.shot1;
	shot5 = sum.shot5 / n - small.figures.shot5;
	reached = knn >= wanted.knn && shot1 >= wanted.shot1 && shot5 >= wanted.shot5;
	printf("average gain at size: knn %+.4f shot1 %+.4f shot5 %+.4f, wanted %+.2f %+.2f "
	       "%+.2f: %s\n",
		knn, shot1, shot5, wanted.knn, wanted.shot1, wanted.shot5,
		reached ? "reached" : "NOT reached");
	return reached ? 0 : 1;
}

static int parse(struct options *options, int argc, char **argv)
{
	static const struct option names[] = {
		{ "px", required_argument, NULL, 'p' },
		{ "resize", required_argument, NULL, 'r' },
		{ "steps", required_argument, NULL, 's' },
		{ "travel", required_argument, NULL, 'l' },
		{ "first", required_argument, NULL, 'f' },
		{ "seeds", required_argument, NULL, 'n' },
		{ "trace", no_argument, NULL, 't' },
		{ "objective", required_argument, NULL, 'o' },
		{ "recipe", required_argument, NULL, 'c' },
		{ "memory", required_argument, NULL, 'm' },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	*options = (struct options){
		.resize = PREP_SQUASH, .px = INPUT_PX, .first_seed = 1, .n_seeds = 3
	};
	while ((c = getopt_long(argc, argv, "", names, NULL)) != -1) {
		if (c == 'r')
			options->resize = strcmp(optarg, "crop") == 0 ? PREP_CROP : PREP_SQUASH;
		else if (c == 'p')
			options->px = (uint32_t)strtoul(optarg, NULL, 10);
		else if (c == 's')
			options->steps = (uint32_t)strtoul(optarg, NULL, 10);
		else if (c == 'l')
			options->travel = strtof(optarg, NULL);
		else if (c == 'f')
			options->first_seed = (uint32_t)strtoul(optarg, NULL, 10);
		else if (c == 'n')
			options->n_seeds = (uint32_t)strtoul(optarg, NULL, 10);
		else if (c == 'o')
			options->objective = optarg;
		else if (c == 'c')
			options->recipe = optarg;
		else if (c == 'm')
			options->memory = strtoull(optarg, NULL, 10);
		else if (c == 't')
			options->trace = true;
		else
			return -EINVAL;
	}
	options->dir = optind < argc ? argv[optind] : NULL;
	return options->n_seeds > 0 ? 0 : -EINVAL;
}

int main(int argc, char **argv)
{
	const char *shared = getenv("KAMEN_SHARED");
	static struct study study;
	int r;

	if (parse(&study.options, argc, argv) < 0)
		return 2;
	r = open_study(&study, shared ? shared : "../shared");
	if (r == -ENOENT) {
		printf("skipped: neither $KAMEN_SHARED nor ../shared has model and images\n");
		r = 77;
	} else {
		r = r < 0 ? 1 : run(&study);
	}
	close_study(&study);
	return r < 0 ? 1 : r;
}
