/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The study of the recipe: on NEU's learning part (contract.md's split) one field changed at a time
 * from the default, one line of a CSV file a run. A run whose line is there is not run again; one
 * that was killed goes on from its checkpoint. The most telling runs come first.
 *
 *   recipe_study [--list] [--only FACTOR] [--seed N] [--set FIELD=VALUE]... [--px N]
 *                [--csv FILE] [--scratch PREFIX] [--data DIR] [--model FILE]
 *
 * --list: print what there is to do; --set, --px: after what a run itself changes, for a short look.
 * Exit 0: every run has its line, 1: an error, 77: no model or no images here.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>

#include "adapt_learn.h"
#include "csv.h"
#include "learn/recipe_field.h"

#define SMALL_PX 112u
#define LARGE_PX 224u
#define MAX_FIELDS 32u
#define DEFAULT_CSV "tests/slow/recipe.csv"
#define DEFAULT_SCRATCH "build/release/check-slow/recipe"

/** One run. A travel is steps * score_lr / 2, how far a score can go; 0: what the recipe has. */
struct run {
	const char *factor, *value;
	const char *settings; /* of the recipe */
	float travel;
	uint32_t px; /* of the site */
	uint64_t seed;
};

#define SMALL(factor, value, settings, travel, seed) \
	{ \
		factor, value, settings, travel, SMALL_PX, seed \
	}
#define LARGE(factor, value, settings, travel) \
	{ \
		factor, value, settings, travel, LARGE_PX, 1 \
	}

/* With Adam and every score at 1 nothing can flip before the steps have summed to 1. SGD's rate has
 * no such meaning; design.md saw no bit move at 10 and small tensors lost at 300. At 224 px a step
 * takes four times as long: 60 steps, to be held against those at 112 px. */
static const struct run runs[] = {
	SMALL("default", "1", "", 0, 1),
	SMALL("travel", "1.125", "", 1.125f, 1),
	SMALL("travel", "2.25", "", 2.25f, 1),
	SMALL("steps", "60", "steps=60", 1.5f, 1),
	SMALL("default", "2", "", 0, 2),
	SMALL("precision", "f32", "precision=f32", 0, 1),
	SMALL("precision", "bf16", "precision=bf16", 0, 1),
	SMALL("travel", "3", "", 3, 1),
	SMALL("steps", "30", "steps=30", 1.5f, 1),
	SMALL("batch", "32", "batch=32", 0, 1),
	SMALL("spread", "0.1", "score_spread=.1", 0, 1),
	SMALL("prototypes", "30", "n_prototypes=30", 0, 1),
	SMALL("optimiser", "sgd 100", "optimiser=sgd score_lr=100", 0, 1),
	LARGE("native", "crop 112", "steps=60", 1.5f),
	SMALL("batch", "128", "batch=128", 0, 1),
	SMALL("spread", "0.3", "score_spread=.3", 0, 1),
	SMALL("prototypes", "300", "n_prototypes=300", 0, 1),
	SMALL("default", "3", "", 0, 3),
	SMALL("steps", "200", "steps=200", 1.5f, 1),
	SMALL("optimiser", "sgd 30", "optimiser=sgd score_lr=30", 0, 1),
	SMALL("optimiser", "sgd 300", "optimiser=sgd score_lr=300", 0, 1),
	/* At 30 to 300 no bit moved. */
	SMALL("optimiser", "sgd 1000", "optimiser=sgd score_lr=1000", 0, 1),
	SMALL("optimiser", "sgd 3000", "optimiser=sgd score_lr=3000", 0, 1),
	SMALL("travel", "0.75", "", .75f, 1),
	SMALL("travel", "4.5", "", 4.5f, 1),
	LARGE("native", "crop 224, travel 1.125", "large_px=224 small_px=128 steps=60", 1.125f),
	LARGE("native", "crop 224, travel 1.5", "large_px=224 small_px=128 steps=60", 1.5f),
	LARGE("native", "crop 160, travel 1.5", "large_px=160 small_px=96 steps=60", 1.5f),
	LARGE("native", "crop 224, travel 0.75", "large_px=224 small_px=128 steps=60", .75f),
	SMALL("warm-up", "0.1", "warm_up=.1", 0, 1),
	/* Whether what lies near is half of the effect. */
	SMALL("spread", "0.3, travel 0.75", "score_spread=.3", .75f, 1),
	SMALL("travel", "1.125", "", 1.125f, 2),
	SMALL("travel", "2.25", "", 2.25f, 2),
	SMALL("steps", "60", "steps=60", 1.5f, 2),
	SMALL("batch", "32", "batch=32", 0, 2),
	SMALL("spread", "0.1", "score_spread=.1", 0, 2),
	SMALL("spread", "0.3", "score_spread=.3", 0, 2),
	SMALL("spread", "0.3", "score_spread=.3", 0, 3),
	SMALL("spread", "0.5", "score_spread=.5", 0, 1),
	SMALL("prototypes", "30", "n_prototypes=30", 0, 2),
};
_Static_assert(ARRAY_SIZE(runs) <= 40, "the study's bound");

/** Sizes at which a mask is looked at, whatever it was learnt at. */
enum place { AT_SIZE, AT_SMALL, AT_NATIVE, N_PLACES };

struct options {
	const char *csv, *scratch, *data, *model, *only;
	const char *fields[MAX_FIELDS]; /* NAME=VALUE */
	uint32_t n_fields, px;          /* px 0: of each run */
	uint64_t seed;                  /* 0: of each run */
	bool list;
};

struct study {
	struct options options;
	struct base *base;
	struct vit *vit;
	struct slot *slot;
	struct adapt_site site;
	struct adapt_rows scratch;
	/* Of the frozen model, as far as it was looked at; n_episodes 0: not yet. */
	struct figures frozen[N_PLACES];
	uint32_t frozen_px; /* AT_SIZE */
};

/** What a line is made of. */
struct result {
	const struct run *run;
	struct recipe recipe;
	struct adapt_row row;
	struct figures figures[N_PLACES];
	char key[17];
};

static const char head[] =
	"key,factor,value,px,seed,steps,travel,precision,isa,threads,model,images,density,"
	"lowest_density,flips,kept_step,bytes,seconds,loss_ratio,retrieval_frozen,retrieval,"
	"margin_frozen,margin,rank_frozen,rank,entropy,neighbours,passed,knn_frozen,shot1_frozen,"
	"shot5_frozen,knn,shot1,shot5,knn_112_frozen,shot1_112_frozen,shot5_112_frozen,knn_112,"
	"shot1_112,shot5_112,knn_native_frozen,shot1_native_frozen,shot5_native_frozen,knn_native,"
	"shot1_native,shot5_native,ms,reasons,recipe\n";

static int complain(int r, const char *where, const struct diag *diag)
{
	fprintf(stderr, "recipe_study: %s: %s\n", where, diag->text[0] ? diag->text : strerror(-r));
	return r;
}

static struct prep prep_of(const struct study *study, enum place place, uint32_t px)
{
	struct prep prep = vit_native_prep(study->vit);

	if (place == AT_NATIVE)
		return prep;
	prep.input_px = place == AT_SMALL ? SMALL_PX : px;
	prep.resize = PREP_SQUASH;
	return prep;
}

/* ---- what a run is */

/* @return false: this build's recipe has no such field */
static bool knows(const char *settings)
{
	char name[64];

	if (!*settings)
		return true;
	(void)snprintf(name, sizeof(name), "%.*s", (int)strcspn(settings, "="), settings);
	for (const struct recipe_field *field = recipe_fields; field->name; field++)
		if (strcmp(field->name, name) == 0)
			return true;
	return false;
}

static int recipe_of(struct recipe *ret_recipe, struct study *study, const struct run *run,
	const struct prep *prep)
{
	const uint32_t n_images = adapt_site_source(&study->site, false).n;
	const struct options *options = &study->options;
	const char *fields[1 + MAX_FIELDS] = { run->settings };
	struct recipe recipe;
	struct diag diag = { "" };
	int r;

	memcpy(fields + 1, options->fields, options->n_fields * sizeof(*fields));
	r = adapt_recipe(
		&recipe, study->vit, prep, n_images, 0, fields, 1 + options->n_fields, &diag);
	if (r < 0)
		return complain(r, run->factor, &diag);
	recipe.seed = run->seed;
	if (run->travel > 0)
		recipe.score_lr = 2 * run->travel / (float)recipe.steps;
	*ret_recipe = recipe;
	return 0;
}

/* Everything that the result depends on, but for the instruction set and the thread count. */
static void name_result(struct result *result, const struct study *study, const struct prep *prep)
{
	static const char domain[] = "kamen recipe study 1";
	const struct digest parts[] = { recipe_digest(&result->recipe), *vit_digest(study->vit),
		prep_digest(prep) };
	struct digest_state state;
	struct digest digest;
	char hex[DIGEST_HEX_CHARS + 1];

	digest_init(&state);
	digest_update(&state, domain, sizeof(domain));
	digest_update(&state, parts, sizeof(parts));
	digest_update(&state, study->site.images, strlen(study->site.images));
	digest = digest_final(&state);
	digest_to_hex(&digest, hex);
	(void)snprintf(result->key, sizeof(result->key), "%.16s", hex);
}

/* ---- the file */

static bool is_done(const char *path, const char *key)
{
	_cleanup_(fclosep) FILE *file = fopen(path, "re");
	_cleanup_(freep) char *line = NULL;
	size_t n_room = 0, n_key = strlen(key);
	ssize_t n;

	while (file && (n = getline(&line, &n_room, file)) > 0)
		if (line[n - 1] == '\n' && strncmp(line, key, n_key) == 0 && line[n_key] == ',')
			return true;
	return false;
}

/* Of recipe_text(), so that a field which comes later needs no edit here. */
static void put_precision(char text[16], const struct recipe_text *recipe)
{
	const char *at = strstr(recipe->text, " precision=");

	(void)snprintf(text, 16, "%.*s", at ? (int)strcspn(at + 11, " ") : 3, at ? at + 11 : "f32");
}

static void print_figures(FILE *file, const struct figures *figures)
{
	(void)fprintf(file, ",%.5f,%.5f,%.5f", figures->knn, figures->shot1, figures->shot5);
}

static void print_line(FILE *file, const struct study *study, const struct result *result)
{
	const struct recipe *recipe = &result->recipe;
	const struct recipe_text text = recipe_text(recipe);
	const struct adapt_row *row = &result->row;
	char precision[16];

	put_precision(precision, &text);
	(void)fprintf(file, "%s,%s,\"%s\",%u,%" PRIu64 ",%u,%g,%s,%s,%d,%s,%s", result->key,
		result->run->factor, result->run->value, row->px, recipe->seed, recipe->steps,
		(double)(recipe->score_lr * (float)recipe->steps / 2), precision,
		vit_isa(study->vit), omp_get_max_threads(), row->base, row->images);
	(void)fprintf(file, ",%.6f,%.5f,%" PRIu64 ",%u,%" PRIu64 ",%.0f,%.4f", row->density,
		row->lowest_density, row->n_flips, row->kept_step, row->n_bytes, row->seconds,
		row->loss_ratio);
	(void)fprintf(file, ",%.4f,%.4f,%.4f,%.4f,%.2f,%.2f,%.4f,%.4f,%d", row->base_retrieval,
		row->retrieval, row->base_margin, row->margin, row->base_rank, row->rank,
		row->entropy, row->neighbours, row->passed);
	for (enum place place = 0; place < N_PLACES; place++) {
		print_figures(file, &study->frozen[place]);
		print_figures(file, &result->figures[place]);
	}
	(void)fprintf(file, ",%.2f,\"", row->ms);
	for (const char *c = row->reasons; *c; c++)
		(void)fputc(*c == '"' ? '\'' : *c, file);
	(void)fprintf(file, "\",\"%s\"\n", text.text);
}

static int add_line(const struct study *study, const struct result *result)
{
	_cleanup_(freep) char *line = NULL;
	size_t n;
	FILE *file = open_memstream(&line, &n);

	if (!file)
		return -ENOMEM;
	print_line(file, study, result);
	if (fclose(file) != 0)
		return -ENOMEM;
	return csv_append(study->options.csv, head, line);
}

/* ---- running */

static int look(struct figures *ret_figures, double *ret_ms, struct study *study,
	const struct mask *mask, const struct prep *prep)
{
	_cleanup_(freep) float *rows = NULL;
	int r = adapt_site_embed_held(&rows, ret_ms, &study->site, mask, prep);

	if (r < 0)
		return r;
	return adapt_site_figures(
		ret_figures, NULL, &study->site, rows, vit_shape(study->vit)->width);
}

/* A mask at every size, NULL: the frozen model, which is looked at once. */
static int look_everywhere(struct result *result, struct study *study, const struct mask *mask)
{
	double ms = 0;
	int r = 0;

	if (study->frozen_px != result->row.px)
		study->frozen[AT_SIZE] = (struct figures){ 0 };
	study->frozen_px = result->row.px;
	for (enum place place = 0; r == 0 && place < N_PLACES; place++) {
		struct prep prep = prep_of(study, place, result->row.px);
		bool again = place == AT_SMALL && result->row.px == SMALL_PX;
		struct figures *frozen = &study->frozen[place], *figures = result->figures + place;

		if (again)
			*frozen = study->frozen[AT_SIZE];
		else if (frozen->n == 0)
			r = look(frozen, &ms, study, NULL, &prep);
		*figures = again ? result->figures[AT_SIZE] : *frozen;
		if (r == 0 && mask && !again)
			r = look(figures, &ms, study, mask, &prep);
		if (place == AT_SIZE)
			result->row.ms = ms;
	}
	return r;
}

static int learn(struct result *result, struct study *study, const struct prep *prep)
{
	_cleanup_(mask_freep) struct mask *mask = NULL;
	struct adapt_row *row = &result->row;
	struct diag diag = { "" };
	int r;

	r = adapt_learn(&mask, row, &study->site, &study->scratch, &result->recipe, prep, &diag);
	if (r == -EDOM) {
		row->passed = 0;
		(void)snprintf(row->reasons, sizeof(row->reasons),
			"no candidate: the loss is no number any more");
		r = 0;
	}
	if (r == 0)
		r = adapt_site_judge(row, &study->site, mask, &result->recipe, prep);
	if (r == 0)
		r = look_everywhere(result, study, mask);
	return r < 0 ? complain(r, result->run->factor, &diag) : 0;
}

static void tell(const struct study *study, const struct result *result)
{
	const struct figures *frozen = &study->frozen[AT_SIZE], *now = &result->figures[AT_SIZE];
	const struct adapt_row *row = &result->row;

	printf("%s %s, %u px, seed %" PRIu64 ": knn %.3f -> %.3f, shot1 %.3f -> %.3f, "
	       "shot5 %.3f -> %.3f, density %.5f, loss ratio %.3f, %.0f s%s%s\n",
		result->run->factor, result->run->value, row->px, row->seed, frozen->knn, now->knn,
		frozen->shot1, now->shot1, frozen->shot5, now->shot5, row->density, row->loss_ratio,
		row->seconds, row->passed ? "" : ", held: ", row->passed ? "" : row->reasons);
	(void)fflush(stdout);
}

static void clean_up(const struct study *study, const struct adapt_row *row)
{
	char path[1024];

	adapt_learn_done(&study->scratch, row);
	adapt_rows_path(&study->scratch, row, "scores", path);
	(void)unlink(path);
}

/* @return 1: its line was there, or would be of another build; 0: it is there now; or an errno */
static int run_one(struct study *study, const struct run *run)
{
	uint32_t px = study->options.px ? study->options.px : run->px;
	struct prep prep = prep_of(study, AT_SIZE, px);
	struct result result = { .run = run };
	int r;

	if (!knows(run->settings)) {
		printf("%s %s: this build's recipe does not have it\n", run->factor, run->value);
		return 1;
	}
	r = recipe_of(&result.recipe, study, run, &prep);
	if (r < 0)
		return r;
	name_result(&result, study, &prep);
	if (is_done(study->options.csv, result.key) || study->options.list) {
		printf("%s %s, %u px, seed %" PRIu64 ": %s\n", run->factor, run->value, px,
			run->seed,
			is_done(study->options.csv, result.key) ? "done before" : "to be run");
		return 1;
	}
	result.row = adapt_site_row(&study->site, "study", &prep, &result.recipe);
	r = learn(&result, study, &prep);
	if (r == 0)
		r = add_line(study, &result);
	if (r < 0)
		return r;
	clean_up(study, &result.row);
	tell(study, &result);
	return 0;
}

static int run_all(struct study *study)
{
	uint32_t n_run = 0;
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(runs); i++) {
		const struct options *options = &study->options;

		if ((options->only && strcmp(options->only, runs[i].factor) != 0) ||
			(options->seed && options->seed != runs[i].seed))
			continue;
		r = run_one(study, &runs[i]);
		if (r < 0)
			return r;
		n_run += r == 0;
	}
	printf("%u runs, the others before\n", n_run);
	return 0;
}

static int open_study(struct study *study)
{
	const struct options *options = &study->options;
	struct diag diag = { "" };
	int r;

	r = base_load(&study->base, options->model, &diag);
	if (r == 0)
		r = vit_new(&study->vit, study->base, NULL, &diag);
	if (r == 0)
		r = vit_slot_new(&study->slot, study->vit, SLOT_INFER);
	if (r < 0)
		return complain(r, options->model, &diag);
	r = adapt_site_open(
		&study->site, study->vit, study->slot, options->data, 2 * LARGE_PX, &diag);
	if (r < 0)
		return complain(r, options->data, &diag);
	r = csv_make_parents(options->csv);
	if (r == 0)
		r = csv_check(options->csv, head);
	if (r == -EBADMSG)
		(void)diag_set(&diag, EBADMSG, "other columns than this program's: move it away");
	if (r < 0)
		return complain(r, options->csv, &diag);
	r = adapt_rows_open(&study->scratch, options->scratch);
	return r < 0 ? complain(r, options->scratch, &diag) : 0;
}

static void close_study(struct study *study)
{
	adapt_rows_done(&study->scratch);
	adapt_site_done(&study->site);
	slot_free(study->slot);
	vit_free(study->vit);
	base_free(study->base);
}

static int take(struct options *options, int option, const char *value)
{
	switch (option) {
	case 'c':
		options->csv = value;
		return 0;
	case 'w':
		options->scratch = value;
		return 0;
	case 'd':
		options->data = value;
		return 0;
	case 'm':
		options->model = value;
		return 0;
	case 'o':
		options->only = value;
		return 0;
	case 'p':
		options->px = (uint32_t)strtoul(value, NULL, 10);
		return options->px ? 0 : -EINVAL;
	case 's':
		options->seed = strtoull(value, NULL, 10);
		return options->seed ? 0 : -EINVAL;
	case 'l':
		options->list = true;
		return 0;
	case 'f':
		if (options->n_fields == MAX_FIELDS)
			return -EINVAL;
		options->fields[options->n_fields++] = value;
		return 0;
	default:
		return -EINVAL;
	}
}

static int parse(struct options *options, int argc, char **argv)
{
	static const struct option names[] = {
		{ "csv", required_argument, NULL, 'c' },
		{ "scratch", required_argument, NULL, 'w' },
		{ "data", required_argument, NULL, 'd' },
		{ "model", required_argument, NULL, 'm' },
		{ "only", required_argument, NULL, 'o' },
		{ "px", required_argument, NULL, 'p' },
		{ "seed", required_argument, NULL, 's' },
		{ "set", required_argument, NULL, 'f' },
		{ "list", no_argument, NULL, 'l' },
		{ NULL, 0, NULL, 0 },
	};
	int c, r = 0;

	while (r == 0 && (c = getopt_long(argc, argv, "", names, NULL)) != -1)
		r = take(options, c, optarg);
	return optind < argc ? -EINVAL : r;
}

int main(int argc, char **argv)
{
	const char *shared = getenv("KAMEN_SHARED");
	char data[512], model[512];
	static struct study study;
	int r;

	if (!shared)
		shared = "../shared";
	(void)snprintf(data, sizeof(data), "%s/data/neu", shared);
	(void)snprintf(
		model, sizeof(model), "%s/models/vit_tiny_patch16_224/model.safetensors", shared);
	study.options = (struct options){
		.csv = DEFAULT_CSV, .scratch = DEFAULT_SCRATCH, .data = data, .model = model
	};
	if (parse(&study.options, argc, argv) < 0)
		return 2;
	r = open_study(&study);
	if (r == 0)
		r = run_all(&study);
	close_study(&study);
	if (r == -ENOENT) {
		printf("skipped: neither $KAMEN_SHARED nor ../shared has model and images\n");
		return 77;
	}
	return r < 0 ? 1 : 0;
}
