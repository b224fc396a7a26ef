/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What hpm learns on real images (contract.md's split of NEU): learns on the learning part and looks
 * at the held one.
 *
 *   hpm_study [--px N] [--ask-px N] [--steps N] [--travel X] [--seed N] [--images N] [--recipe "NAME=VALUE ..."]
 *             [--out DIR] [--figures] [--save FILE]
 *
 * --ask-px is the size at which maps are asked for, --images how many held ones, --out where the maps
 * of ten images go as PNG. --save keeps the round in a file and goes on from it. --figures says what the mask is worth beside the frozen model.
 *
 * Exit 0: predicted and true losses agree (mean Spearman of .5) and hard masks cost more than random
 * ones, 1: they do not, 77: no model or no images here.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "classify/figures.h"
#include "hpm_study.h"
#include "learn/judge.h"
#include "learn/round_state.h"

#define INPUT_PX 112u
#define WANTED .5

struct options {
	uint32_t px, ask_px, steps, n_images;
	uint64_t seed;
	float travel;
	const char *recipe, *out, *save;
	bool figures;
};

struct study {
	struct options options;
	struct base *base;
	struct vit *vit;
	struct folder *learn, *held;
	struct prep prep;
	char data[4096];
};

int hpm_view_open(struct hpm_view *ret_view, struct vit *vit, const struct prep *prep,
	const struct round *round)
{
	struct hpm_view view = { .vit = vit, .prep = *prep };
	_cleanup_(freep) void *data = NULL;
	struct vit_tape_options options = {
		.batch = 1, .px = prep->input_px, .all_out = true, .forward_only = true
	};
	const struct digest mask = mask_digest(round_mask(round));
	struct diag diag = { "" };
	size_t n_bytes;
	int r;

	*ret_view = view;
	view.grid = prep->input_px / vit_shape(vit)->patch;
	view.tokens = malloc(
		(1 + (size_t)view.grid * view.grid) * vit_shape(vit)->width * sizeof(*view.tokens));
	view.map = malloc((size_t)view.grid * view.grid * sizeof(*view.map));
	r = view.tokens && view.map ? round_hardness(round, &mask, &data, &n_bytes) : -ENOMEM;
	if (r == 0)
		r = hardness_load(&view.hardness, vit, data, n_bytes, &diag);
	if (r == 0)
		r = vit_slot_new(&view.slot, vit, SLOT_INFER);
	if (r == 0)
		r = slot_apply(view.slot, round_mask(round));
	if (r == 0)
		r = vit_tape_open(&view.whole, vit, &options);
	*ret_view = view;
	return r;
}

void hpm_view_close(struct hpm_view *view)
{
	vit_tape_free(view->whole);
	slot_free(view->slot);
	hardness_free(view->hardness);
	free(view->tokens);
	free(view->map);
}

int hpm_view_look(struct hpm_view *view, const struct image_view *image)
{
	_cleanup_(resize_scratch_freep) struct resize_scratch *scratch = NULL;
	int r = resize_scratch_new(&scratch);

	if (r == 0)
		r = prep_apply(&view->prep, image, vit_tape_input(view->whole), scratch);
	if (r == 0)
		r = vit_tape_forward(view->whole, view->slot, view->tokens);
	return r < 0 ? r : hardness_map(view->hardness, view->tokens, 1, view->grid, view->map);
}

static int open_study(struct study *study, const char *shared)
{
	struct diag diag = { "" };
	char path[4096];
	int r;

	(void)snprintf(
		path, sizeof(path), "%s/models/vit_tiny_patch16_224/model.safetensors", shared);
	(void)snprintf(study->data, sizeof(study->data), "%s/data/neu", shared);
	r = base_load(&study->base, path, &diag);
	if (r == 0)
		r = vit_new(&study->vit, study->base, NULL, &diag);
	if (r == 0)
		r = folder_open(&study->learn, study->data, FOLDER_LEARN, 0, &diag);
	if (r == 0)
		r = folder_open(&study->held, study->data, FOLDER_HELD, 0, &diag);
	if (r < 0) {
		fprintf(stderr, "hpm_study: %s\n", diag.text[0] ? diag.text : strerror(-r));
		return r;
	}
	study->prep = vit_native_prep(study->vit);
	study->prep.resize = PREP_SQUASH;
	study->prep.input_px = study->options.px;
	return 0;
}

static void close_study(struct study *study)
{
	folder_free(study->held);
	folder_free(study->learn);
	vit_free(study->vit);
	base_free(study->base);
}

static int learn(struct round *round, struct round_progress *progress, const char *save)
{
	uint64_t start = clock_now_ns();
	int r = save ? round_resume(round, AT_FDCWD, save, NULL) : 0;

	if (r < 0 && r != -ENOENT)
		return r;
	do {
		r = round_step(round, progress);
		if (r < 0)
			return r;
		if (progress->step % ((progress->steps + 9) / 10) != 0 && r > 0)
			continue;
		printf("  step %u, %.0f s: loss ratio %.3f density %.5f", progress->step,
			(double)(clock_now_ns() - start) / NS_PER_S, (double)progress->loss_ratio,
			progress->density);
		for (uint32_t i = 0; i < progress->n_figures; i++)
			printf(" %s %.4f", progress->figures[i].name,
				(double)progress->figures[i].value);
		printf("\n");
		(void)fflush(stdout);
		if (save && round_save(round, AT_FDCWD, save) < 0)
			return -EIO;
	} while (r > 0);
	return 0;
}

static int evaluate(struct study *study, struct slot *slot, const struct prep *prep,
	struct figures *figures, struct figures_detail *detail)
{
	struct image_source source = folder_source(study->held);
	const uint32_t width = vit_shape(study->vit)->width;
	_cleanup_(freep) float *rows = malloc((size_t)source.n * width * sizeof(*rows));
	int r = rows ? judge_embed(rows, study->vit, slot, prep, &source) : -ENOMEM;

	return r < 0 ? r
		     : figures_compute(figures, detail, rows, study->held->labels, source.n, width,
			       study->held->n_names, 1);
}

/* The mask against the frozen model, paired. */
static int compare(struct study *study, const struct mask *mask, uint32_t px)
{
	_cleanup_(slot_freep) struct slot *slot = NULL;
	struct figures figures[2];
	struct figures_detail details[2] = { { 0 }, { 0 } };
	struct figures_diff knn, shot1, shot5;
	struct prep prep = study->prep;
	int r = vit_slot_new(&slot, study->vit, SLOT_INFER);

	prep.input_px = px;
	for (unsigned i = 0; i < 2 && r == 0; i++) {
		r = slot_apply(slot, i ? mask : NULL);
		if (r == 0)
			r = evaluate(study, slot, &prep, &figures[i], &details[i]);
	}
	if (r == 0)
		r = figures_compare(
			&knn, &shot1, &shot5, &details[0], &details[1], study->held->n, 1);
	if (r == 0)
		printf("at %u px: knn %.4f -> %.4f (%+.4f, %+.4f..%+.4f) shot1 %.4f -> %.4f "
		       "(%+.4f..%+.4f) "
		       "shot5 %.4f -> %.4f (%+.4f..%+.4f)\n",
			px, figures[0].knn, figures[1].knn, knn.diff, knn.lo, knn.hi,
			figures[0].shot1, figures[1].shot1, shot1.lo, shot1.hi, figures[0].shot5,
			figures[1].shot5, shot5.lo, shot5.hi);
	figures_detail_done(&details[0]);
	figures_detail_done(&details[1]);
	return r;
}

static int make_recipe(struct recipe *recipe, const struct study *study, struct diag *diag)
{
	const struct options *options = &study->options;
	int r = 0;

	*recipe = recipe_for(study->vit, &study->prep, study->learn->n, RECIPE_HPM, options->steps);
	recipe->seed = options->seed;
	recipe->large_px = options->px;
	if (options->travel >= 0)
		recipe->score_lr = 2 * options->travel / (float)recipe->steps;
	if (options->recipe)
		r = recipe_read(recipe, options->recipe, diag);
	printf("%s\n", recipe_text(recipe).text);
	return r;
}

static int ask(struct study *study, const struct round *round, struct hpm_held *held)
{
	struct image_source images = folder_source(study->held);
	__attribute__((cleanup(hpm_view_close))) struct hpm_view view = { 0 };
	__attribute__((cleanup(hpm_view_close))) struct hpm_view other = { 0 };
	struct prep prep = study->prep;
	int r;

	r = hpm_view_open(&view, study->vit, &study->prep, round);
	if (r == 0)
		r = hpm_held_measure(held, &view, round, &images, study->options.n_images);
	if (r < 0)
		return r;
	printf("%u held images: Spearman %.3f (sd over images %.3f, %.0f %% at .5 or more); loss "
	       "under "
	       "random masks %.4f, half hard %.4f (%.3f of it); over images: mean %.3f, top tenth "
	       "%.3f\n",
		held->n, held->spearman, held->spearman_sd, 100 * held->share_above, held->random,
		held->hard, held->hard / held->random, held->image_mean, held->image_top);
	if (study->options.ask_px == study->options.px)
		return hpm_boxes(&view, study->data, study->options.out);
	prep.input_px = study->options.ask_px;
	r = hpm_boxes(&view, study->data, NULL);
	if (r == 0)
		r = hpm_view_open(&other, study->vit, &prep, round);
	return r < 0 ? r : hpm_boxes(&other, study->data, study->options.out);
}

static int run(struct study *study)
{
	_cleanup_(round_freep) struct round *round = NULL;
	struct image_source source = folder_source(study->learn);
	struct round_progress progress;
	struct recipe recipe;
	struct hpm_held held;
	struct diag diag = { "" };
	int r;

	r = make_recipe(&recipe, study, &diag);
	if (r == 0)
		r = round_new(&round, study->vit, &recipe, &study->prep, &source, &diag);
	if (r == 0)
		r = learn(round, &progress, study->options.save);
	if (r == 0)
		r = ask(study, round, &held);
	if (r == 0 && study->options.figures)
		r = compare(study, round_mask(round), study->options.px);
	if (r == 0 && study->options.figures && study->options.ask_px != study->options.px)
		r = compare(study, round_mask(round), study->options.ask_px);
	if (r < 0) {
		fprintf(stderr, "hpm_study: %s\n", diag.text[0] ? diag.text : strerror(-r));
		return r;
	}
	return held.spearman >= WANTED && held.hard > held.random ? 0 : 1;
}

static int parse(struct options *options, int argc, char **argv)
{
	static const struct option names[] = {
		{ "px", required_argument, NULL, 'p' },
		{ "ask-px", required_argument, NULL, 'a' },
		{ "steps", required_argument, NULL, 's' },
		{ "travel", required_argument, NULL, 't' },
		{ "seed", required_argument, NULL, 'n' },
		{ "images", required_argument, NULL, 'i' },
		{ "recipe", required_argument, NULL, 'r' },
		{ "out", required_argument, NULL, 'o' },
		{ "figures", no_argument, NULL, 'f' },
		{ "save", required_argument, NULL, 'k' },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	*options = (struct options){ .px = INPUT_PX, .seed = 1, .n_images = 100, .travel = -1 };
	while ((c = getopt_long(argc, argv, "", names, NULL)) != -1) {
		if (c == 'p')
			options->px = (uint32_t)strtoul(optarg, NULL, 10);
		else if (c == 'a')
			options->ask_px = (uint32_t)strtoul(optarg, NULL, 10);
		else if (c == 's')
			options->steps = (uint32_t)strtoul(optarg, NULL, 10);
		else if (c == 't')
			options->travel = strtof(optarg, NULL);
		else if (c == 'n')
			options->seed = strtoull(optarg, NULL, 10);
		else if (c == 'i')
			options->n_images = (uint32_t)strtoul(optarg, NULL, 10);
		else if (c == 'r')
			options->recipe = optarg;
		else if (c == 'o')
			options->out = optarg;
		else if (c == 'k')
			options->save = optarg;
		else if (c == 'f')
			options->figures = true;
		else
			return -EINVAL;
	}
	if (!options->ask_px)
		options->ask_px = options->px;
	return options->n_images > 1 ? 0 : -EINVAL;
}

int main(int argc, char **argv)
{
	const char *shared = getenv("KAMEN_SHARED");
	static struct study study;
	int r;

	if (parse(&study.options, argc, argv) < 0)
		return 2;
	/* What is stopped in the middle has said what it knew. */
	(void)setvbuf(stdout, NULL, _IOLBF, 0);
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
