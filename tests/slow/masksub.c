/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The study of masksub: of NEU's learning part (contract.md's split) ten images of each class, drawn by
 * the seed; of the held part the share that a mask and its head classify rightly, with none, half and
 * three quarters of the patches left out. One line of a CSV file a run; a run whose line is there is
 * not run again.
 *
 *   masksub_study [--csv FILE] [--form NAME] [--seed N] [--shots N] [--steps N] [--px N]
 *                 [--set FIELD=VALUE]... [--data DIR] [--model FILE]
 *
 * Forms: none (supervised), main (mask on the main loss), twice (two whole passes), masksub, dropsub,
 * pathsub; blocks_none and blocks, which learn the weights of the last two blocks by none and masksub in
 * the place of a mask; frozen, whose head is random. All see the same images with the same views in the
 * same order.
 * `head` is the head that was learnt, `mean` the nearest mean of the whole labelled images by cosine.
 *
 * Exit 0: every run has its line, and masksub is ahead of none and twice where half and where three
 * quarters are left out, on average over the seeds (a mask on the main loss does as well there, and a
 * little worse on whole images), 1: it is not, or an error, 77: no model or no images here.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "csv.h"
#include "image/prep.h"
#include "learn/embed.h"
#include "learn/folder.h"
#include "learn/judge.h"
#include "learn/masksub.h"
#include "learn/patch_mask.h"
#include "learn/round_state.h"
#include "learn/supervised.h"
#include "model/vit_params.h"

enum { PX = 112, N_SHOTS = 10, STEPS = 60, BATCH = 32, N_SEEDS = 3, AT_ONCE = 36, MAX_SETS = 32 };
enum { N_DROPS = 3 };
static const float drops[N_DROPS] = { 0, .5f, .75f };
#define SPLIT_STREAM 0x900u  /* (seed, 0, 0): which images have a label */
#define TOKENS_STREAM 0xa00u /* (1, image, 0) + drop: which patches stay; the same for all runs */

#define DEFAULT_CSV "tests/slow/masksub.csv"

struct form {
	const char *name, *settings;
	enum recipe_objective objective;
	enum recipe_drive drive;
};

static const struct form forms[] = {
	{ "none", "", RECIPE_SUPERVISED, RECIPE_SCORES },
	{ "main", "masksub_form=masked", RECIPE_MASKSUB, RECIPE_SCORES },
	{ "twice", "masksub_form=twice", RECIPE_MASKSUB, RECIPE_SCORES },
	{ "masksub", "", RECIPE_MASKSUB, RECIPE_SCORES },
	{ "dropsub", "masksub_ratio=0 masksub_drop=.2", RECIPE_MASKSUB, RECIPE_SCORES },
	{ "pathsub", "masksub_ratio=0 masksub_path=.2", RECIPE_MASKSUB, RECIPE_SCORES },
	{ "blocks_none", "first_block=10", RECIPE_SUPERVISED, RECIPE_WEIGHTS },
	{ "blocks", "first_block=10", RECIPE_MASKSUB, RECIPE_WEIGHTS },
	{ "frozen", "steps=1 score_lr=0", RECIPE_SUPERVISED, RECIPE_SCORES },
};
enum { NONE, MAIN, TWICE, MASKSUB, N_FORMS = ARRAY_SIZE(forms) };

struct options {
	const char *csv, *data, *model, *form;
	const char *sets[MAX_SETS];
	uint32_t n_sets, n_shots, steps, px;
	uint64_t seed; /* 0: all */
};

struct study {
	struct options options;
	struct base *base;
	struct vit *vit;
	struct folder *learn, *held;
	struct prep prep;
	float *pixels; /* (held->n, 3, px, px) */
	/* Of the images with a label. */
	uint32_t *chosen, *labels, n_chosen;
};

/** Shares of the held images, by how many patches are left out. */
struct result {
	double head[N_DROPS], mean[N_DROPS];
	double density, loss, seconds;
};

static const char head_line[] =
	"key,form,seed,shots,steps,px,images,held,density,loss_ratio,head_0,head_50,head_75,mean_0,"
	"mean_50,mean_75,seconds,recipe\n";

static int complain(int r, const char *where, const struct diag *diag)
{
	fprintf(stderr, "masksub_study: %s: %s\n", where,
		diag && diag->text[0] ? diag->text : strerror(-r));
	return r;
}

/* ---- images */

static int prepare_held(struct study *study)
{
	const size_t n = (size_t)3 * study->prep.input_px * study->prep.input_px;
	const struct image_source source = folder_source(study->held);
	_cleanup_(resize_scratch_freep) struct resize_scratch *scratch = NULL;
	int r = resize_scratch_new(&scratch);

	study->pixels = malloc(source.n * n * sizeof(*study->pixels));
	if (!study->pixels)
		return -ENOMEM;
	for (uint32_t i = 0; r == 0 && i < source.n; i++) {
		struct image_view image;

		r = source.get(source.owner, i, &image);
		if (r == 0)
			r = prep_apply(&study->prep, &image, study->pixels + i * n, scratch);
	}
	return r;
}

static int open_study(struct study *study, const char *shared)
{
	const struct options *options = &study->options;
	struct diag diag = { "" };
	char path[4096];
	int r;

	(void)snprintf(
		path, sizeof(path), "%s/models/vit_tiny_patch16_224/model.safetensors", shared);
	r = base_load(&study->base, options->model ? options->model : path, &diag);
	if (r == 0)
		r = vit_new(&study->vit, study->base, NULL, &diag);
	(void)snprintf(path, sizeof(path), "%s/data/neu", shared);
	if (options->data)
		(void)snprintf(path, sizeof(path), "%s", options->data);
	if (r == 0)
		r = folder_open(&study->learn, path, FOLDER_LEARN, 2 * options->px, &diag);
	if (r == 0)
		r = folder_open(&study->held, path, FOLDER_HELD, 2 * options->px, &diag);
	if (r < 0)
		return complain(r, path, &diag);
	study->prep = vit_native_prep(study->vit);
	study->prep.input_px = options->px;
	study->prep.resize = PREP_SQUASH;
	study->chosen = calloc(study->learn->n, sizeof(*study->chosen));
	study->labels = calloc(study->learn->n, sizeof(*study->labels));
	if (!study->chosen || !study->labels)
		return -ENOMEM;
	return prepare_held(study);
}

static void close_study(struct study *study)
{
	free(study->chosen);
	free(study->labels);
	free(study->pixels);
	folder_free(study->learn);
	folder_free(study->held);
	vit_free(study->vit);
	base_free(study->base);
}

/* The first n_shots of each class in a random order of all. */
static int choose(struct study *study, uint64_t seed)
{
	const struct folder *learn = study->learn;
	_cleanup_(freep) uint32_t *order = calloc(learn->n, sizeof(*order));
	_cleanup_(freep) uint32_t *n_of = calloc(learn->n_names, sizeof(*n_of));
	struct rng rng = rng_stream(seed, 0, 0, SPLIT_STREAM);

	if (!order || !n_of)
		return -ENOMEM;
	rng_permutation(&rng, order, learn->n);
	study->n_chosen = 0;
	for (uint32_t i = 0; i < learn->n; i++) {
		uint32_t label = learn->labels[order[i]];

		if (n_of[label]++ < study->options.n_shots) {
			study->labels[study->n_chosen] = label;
			study->chosen[study->n_chosen++] = order[i];
		}
	}
	return 0;
}

/* ---- figures */

static struct head head_of(struct round *round)
{
	if (round->objective->kind == &objective_supervised)
		return score_head_masked(&((struct supervised *)round->objective)->head);
	return score_head_masked(&((struct masksub *)round->objective)->head);
}

/* Held images with some of their patches left out: (held->n, width). vit: what was learnt. */
static int embed_held(const struct study *study, struct vit *vit, const struct slot *slot,
	unsigned drop, float *rows)
{
	const uint32_t width = vit_shape(study->vit)->width, px = study->prep.input_px;
	const uint32_t grid = px / vit_shape(study->vit)->patch, n_patches = grid * grid;
	const uint32_t n_kept = patch_mask_n_kept(n_patches, drops[drop]);
	const struct vit_tape_options options = {
		.batch = AT_ONCE,
		.px = px,
		.precision = slot_precision(slot),
		.n_kept = n_kept < n_patches ? n_kept : 0,
		.forward_only = true,
	};
	_cleanup_(vit_tape_freep) struct vit_tape *tape = NULL;
	float out[AT_ONCE * 1024];
	uint32_t order[4096];
	int r = vit_tape_open(&tape, vit, &options);

	for (uint32_t first = 0; r == 0 && first < study->held->n; first += AT_ONCE) {
		uint32_t n = study->held->n - first;
		const size_t n_pixels = (size_t)3 * px * px;

		n = n < AT_ONCE ? n : AT_ONCE;
		memcpy(vit_tape_input(tape), study->pixels + first * n_pixels,
			n * n_pixels * sizeof(float));
		for (uint32_t i = 0; options.n_kept && i < n; i++) {
			struct rng rng = rng_stream(1, first + i, 0, TOKENS_STREAM + drop);

			rng_permutation(&rng, order, n_patches);
			memcpy(vit_tape_kept(tape) + i * n_kept, order, n_kept * sizeof(*order));
		}
		r = vit_tape_forward(tape, slot, out);
		if (r == 0)
			memcpy(rows + (size_t)first * width, out, n * width * sizeof(*out));
	}
	return r;
}

/* Class means (n_classes, width) of the labelled images' normalised embeddings. */
static int class_means(struct study *study, struct vit *vit, const struct slot *slot, float *means)
{
	const struct image_source whole = folder_source(study->learn);
	const uint32_t width = vit_shape(study->vit)->width;
	struct embed_part part = { &whole, study->chosen, study->n_chosen };
	const struct image_source source = embed_part_source(&part);
	_cleanup_(freep) float *rows = malloc((size_t)study->n_chosen * width * sizeof(*rows));
	int r;

	if (!rows)
		return -ENOMEM;
	r = judge_embed(rows, vit, slot, &study->prep, &source);
	memset(means, 0, (size_t)study->learn->n_names * width * sizeof(*means));
	for (uint32_t i = 0; r == 0 && i < study->n_chosen; i++) {
		const float *row = rows + (size_t)i * width;
		double length = 0;

		for (uint32_t d = 0; d < width; d++)
			length += (double)row[d] * row[d];
		for (uint32_t d = 0; d < width; d++)
			means[study->labels[i] * width + d] += row[d] / (float)sqrt(length);
	}
	return r;
}

/* Share of rows whose largest product with a class's row is their label's. */
static double share_right(
	const struct study *study, const float *rows, const float *classes, bool by_cosine)
{
	const uint32_t width = vit_shape(study->vit)->width;
	uint32_t n_right = 0;

	for (uint32_t i = 0; i < study->held->n; i++) {
		double best = -INFINITY;
		uint32_t at = 0;

		for (uint32_t c = 0; c < study->held->n_names; c++) {
			const float *row = rows + (size_t)i * width,
				    *of = classes + (size_t)c * width;
			double sum = 0, length = 0;

			for (uint32_t d = 0; d < width; d++) {
				sum += (double)row[d] * of[d];
				length += (double)of[d] * of[d];
			}
			if (by_cosine)
				sum /= sqrt(length);
			if (sum > best) {
				best = sum;
				at = c;
			}
		}
		n_right += at == study->held->labels[i];
	}
	return (double)n_right / study->held->n;
}

static int measure(struct result *result, struct study *study, struct round *round)
{
	const uint32_t width = vit_shape(study->vit)->width;
	_cleanup_(freep) float *rows = malloc((size_t)study->held->n * width * sizeof(*rows));
	_cleanup_(freep) float *means =
		malloc((size_t)study->learn->n_names * width * sizeof(*means));
	_cleanup_(slot_freep) struct slot *slot = NULL;
	const struct head head = head_of(round);
	int r;

	if (!rows || !means)
		return -ENOMEM;
	r = round->drive->apply(round);
	if (r == 0)
		r = vit_slot_new(&slot, round->vit, SLOT_INFER);
	if (r == 0)
		r = slot_apply(slot, round_mask(round));
	if (r == 0)
		r = class_means(study, round->vit, slot, means);
	for (unsigned drop = 0; r == 0 && drop < N_DROPS; drop++) {
		r = embed_held(study, round->vit, slot, drop, rows);
		result->head[drop] = share_right(study, rows, head.prototypes, false);
		result->mean[drop] = share_right(study, rows, means, true);
	}
	return r;
}

/* ---- runs */

static int recipe_of(
	struct recipe *ret_recipe, struct study *study, const struct form *form, uint64_t seed)
{
	const struct options *options = &study->options;
	struct recipe recipe = recipe_for(
		study->vit, &study->prep, study->n_chosen, form->objective, options->steps);
	struct diag diag = { "" };
	int r;

	recipe.seed = seed;
	if (form->drive == RECIPE_WEIGHTS)
		recipe_set_weights(&recipe);
	recipe.batch = BATCH;
	r = recipe_read(&recipe, form->settings, &diag);
	for (uint32_t i = 0; r == 0 && i < options->n_sets; i++)
		r = recipe_read(&recipe, options->sets[i], &diag);
	if (r < 0)
		return complain(r, form->name, &diag);
	*ret_recipe = recipe;
	return 0;
}

static void name_run(char key[17], const struct study *study, const struct recipe *recipe)
{
	static const char domain[] = "kamen masksub study 1";
	const struct digest parts[] = { recipe_digest(recipe), *vit_digest(study->vit),
		prep_digest(&study->prep), study->learn->manifest, study->held->manifest };
	struct digest_state state;
	struct digest digest;
	char hex[DIGEST_HEX_CHARS + 1];

	digest_init(&state);
	digest_update(&state, domain, sizeof(domain));
	digest_update(&state, parts, sizeof(parts));
	digest_update(&state, &study->options.n_shots, sizeof(study->options.n_shots));
	digest = digest_final(&state);
	digest_to_hex(&digest, hex);
	(void)snprintf(key, 17, "%.16s", hex);
}

/* @return whether a line of that key is there, and what it says */
static bool find_line(const char *path, const char *key, struct result *ret_result)
{
	_cleanup_(fclosep) FILE *file = fopen(path, "re");
	_cleanup_(freep) char *line = NULL;
	size_t n_room = 0, n_key = strlen(key);
	struct result result;

	while (file && getline(&line, &n_room, file) > 0) {
		if (strncmp(line, key, n_key) != 0 || !strchr(line, '\n'))
			continue;
		if (sscanf(line,
			    "%*[^,],%*[^,],%*u,%*u,%*u,%*u,%*u,%*u,%lf,%lf,%lf,%lf,%lf,%lf,%lf,%lf",
			    &result.density, &result.loss, &result.head[0], &result.head[1],
			    &result.head[2], &result.mean[0], &result.mean[1],
			    &result.mean[2]) == 8) {
			*ret_result = result;
			return true;
		}
	}
	return false;
}

static int add_line(const struct study *study, const struct form *form, const char *key,
	const struct recipe *recipe, const struct result *result)
{
	const struct recipe_text text = recipe_text(recipe);
	char line[sizeof(text.text) + 512];

	(void)snprintf(line, sizeof(line),
		"%s,%s,%" PRIu64
		",%u,%u,%u,%u,%u,%.6f,%.4f,%.5f,%.5f,%.5f,%.5f,%.5f,%.5f,%.0f,\"%s\"\n",
		key, form->name, recipe->seed, study->options.n_shots, recipe->steps,
		study->prep.input_px, study->n_chosen, study->held->n, result->density,
		result->loss, result->head[0], result->head[1], result->head[2], result->mean[0],
		result->mean[1], result->mean[2], result->seconds, text.text);
	return csv_append(study->options.csv, head_line, line);
}

/* The frozen model as one whose weights move. */
static int open_weights(struct vit **ret_vit, const struct study *study, struct diag *diag)
{
	struct vit_shape shape = *vit_shape(study->vit);
	_cleanup_(params_freep) struct params *params = NULL;
	_cleanup_(freep) float *values = NULL;
	int r;

	shape.n_classes = 0;
	r = vit_params_new(&params, &shape, false);
	if (r < 0)
		return r;
	values = malloc(params->n_values * sizeof(*values));
	if (!values)
		return -ENOMEM;
	r = vit_params_take(params, study->vit, values);
	return r < 0 ? r : vit_over(ret_vit, &shape, false, values, diag);
}

static int learn(struct result *result, struct study *study, const struct recipe *recipe)
{
	_cleanup_(vit_freep) struct vit *weights = NULL;
	_cleanup_(round_freep) struct round *round = NULL;
	const struct image_source whole = folder_source(study->learn);
	struct embed_part part = { &whole, study->chosen, study->n_chosen };
	struct image_source source = embed_part_source(&part);
	struct round_progress progress;
	struct diag diag = { "" };
	uint64_t start = clock_now_ns();
	int r = recipe->drive == RECIPE_WEIGHTS ? open_weights(&weights, study, &diag) : 0;

	source.labels = study->labels;
	source.n_classes = study->learn->n_names;
	if (r == 0)
		r = round_new(&round, weights ? weights : study->vit, recipe, &study->prep, &source,
			&diag);
	if (r < 0)
		return complain(r, "round", &diag);
	do {
		r = round_step(round, &progress);
		if (r < 0)
			return complain(r, "step", NULL);
	} while (r > 0);
	result->density = progress.density;
	result->loss = (double)progress.loss_ratio;
	result->seconds = (double)(clock_now_ns() - start) / NS_PER_S;
	return measure(result, study, round);
}

static int run(struct result *result, struct study *study, const struct form *form, uint64_t seed)
{
	struct recipe recipe;
	char key[17];
	int r = choose(study, seed);

	if (r == 0)
		r = recipe_of(&recipe, study, form, seed);
	if (r < 0)
		return r;
	name_run(key, study, &recipe);
	if (!find_line(study->options.csv, key, result)) {
		r = learn(result, study, &recipe);
		if (r == 0)
			r = add_line(study, form, key, &recipe, result);
	}
	if (r < 0)
		return complain(r, form->name, NULL);
	printf("%-11s seed %" PRIu64
	       "  head %.4f %.4f %.4f  mean %.4f %.4f %.4f  density %.5f loss/ln "
	       "K %.3f\n",
		form->name, seed, result->head[0], result->head[1], result->head[2],
		result->mean[0], result->mean[1], result->mean[2], result->density, result->loss);
	(void)fflush(stdout);
	return 0;
}

static bool wants(const struct options *options, const char *form)
{
	return !options->form || strcmp(options->form, form) == 0;
}

/* Means over the seeds, and masksub's lead over each of the others with its spread over them. */
static bool summarise(const struct result results[N_FORMS][N_SEEDS])
{
	bool ahead = true;

	for (unsigned f = 0; f < N_FORMS; f++)
		for (unsigned drop = 0; drop < N_DROPS; drop++) {
			double sum = 0, lead = 0, square = 0, d;

			for (unsigned s = 0; s < N_SEEDS; s++) {
				sum += results[f][s].head[drop];
				d = results[MASKSUB][s].head[drop] - results[f][s].head[drop];
				lead += d / N_SEEDS;
				square += d * d / N_SEEDS;
			}
			printf("%-11s %2.0f %% left out: %.4f, masksub is ahead by %+.4f "
			       "(deviation "
			       "%.4f)\n",
				forms[f].name, (double)drops[drop] * 100, sum / N_SEEDS, lead,
				sqrt(fmax(square - lead * lead, 0)));
			if ((f == NONE || f == TWICE) && drop > 0)
				ahead = ahead && lead > 0;
		}
	return ahead;
}

static int run_all(struct study *study)
{
	const struct options *options = &study->options;
	static struct result results[N_FORMS][N_SEEDS];
	bool whole = !options->form && options->seed == 0;
	int r;

	r = csv_make_parents(options->csv);
	if (r == 0)
		r = csv_check(options->csv, head_line);
	if (r < 0)
		return complain(r, options->csv, NULL);
	for (uint64_t seed = 1; seed <= N_SEEDS; seed++)
		for (unsigned f = 0; f < N_FORMS; f++) {
			if (!wants(options, forms[f].name) ||
				(options->seed && options->seed != seed))
				continue;
			r = run(&results[f][seed - 1], study, &forms[f], seed);
			if (r < 0)
				return r;
		}
	return !whole || summarise(results) ? 0 : 1;
}

static int parse(struct options *options, int argc, char **argv)
{
	static const struct option names[] = {
		{ "csv", required_argument, NULL, 'c' },
		{ "form", required_argument, NULL, 'f' },
		{ "seed", required_argument, NULL, 's' },
		{ "shots", required_argument, NULL, 'n' },
		{ "steps", required_argument, NULL, 't' },
		{ "px", required_argument, NULL, 'p' },
		{ "set", required_argument, NULL, 'e' },
		{ "data", required_argument, NULL, 'd' },
		{ "model", required_argument, NULL, 'm' },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	*options = (struct options){
		.csv = DEFAULT_CSV, .n_shots = N_SHOTS, .steps = STEPS, .px = PX
	};
	while ((c = getopt_long(argc, argv, "", names, NULL)) != -1) {
		if (c == 'c')
			options->csv = optarg;
		else if (c == 'f')
			options->form = optarg;
		else if (c == 's')
			options->seed = strtoull(optarg, NULL, 10);
		else if (c == 'n')
			options->n_shots = (uint32_t)strtoul(optarg, NULL, 10);
		else if (c == 't')
			options->steps = (uint32_t)strtoul(optarg, NULL, 10);
		else if (c == 'p')
			options->px = (uint32_t)strtoul(optarg, NULL, 10);
		else if (c == 'e' && options->n_sets < MAX_SETS)
			options->sets[options->n_sets++] = optarg;
		else if (c == 'd')
			options->data = optarg;
		else if (c == 'm')
			options->model = optarg;
		else
			return -EINVAL;
	}
	return optind == argc ? 0 : -EINVAL;
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
		r = r < 0 ? 1 : run_all(&study);
	}
	close_study(&study);
	return r < 0 ? 1 : r;
}
