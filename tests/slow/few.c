/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Masks by few-shot classification: learns every set (contract.md's split) by several objectives from
 * its learning part, and compares them with the frozen model on the held part, the same episodes for
 * all of them. A mask that is there is not learnt again; one under way goes on.
 *
 *   few [--sets A,B] [--data DIR]... [--arms A,B] [--seeds N] [--px N] [--steps N]
 *       [--recipe "NAME=VALUE ..."] [--folder PREFIX] [--episodes N] [--learn-only]
 *
 * --arms: objectives, swav, hpm and micm if not given; --recipe: after what the objective sets;
 * --folder: where masks and features lie, with .d behind it.
 * Of every arm on NEU it says whether it helps by contract.md's rule, at five shots, with every seed.
 * Exit 0: each has a mask and does no harm, and micm, if it was asked, helps; 1: not so, or an error;
 * 77: no model or no images here.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "adapt_learn.h"
#include "base/blob.h"

#define INPUT_PX 112u
#define N_EPISODES 600u
#define EPISODE_SEED 1u
#define RATIO 10u
#define MAX_SETS 8u
#define MAX_ARMS 8u
#define HARM .005 /* contract.md: of knn, at the interval's upper end */
#define MAX_FEATURE_BYTES ((size_t)256 << 20)
#define DEFAULT_FOLDER "build/release/check-slow/few" /* and .d */

struct options {
	const char *folders[MAX_SETS], *recipe, *folder;
	char *sets, *arms;
	uint32_t n_folders, n_seeds, px, steps, n_episodes;
	bool learn_only;
};

/** What an arm does to NEU. */
struct verdict {
	char arm[16];
	uint32_t n_without, n_harmful, n_helpful, n_seeds;
};

struct study {
	struct options options;
	struct base *base;
	struct vit *vit;
	struct slot *slot;
	struct adapt_rows rows;
	struct verdict verdicts[MAX_ARMS];
	uint32_t n_verdicts;
};

/** Features of the held part by one model. */
struct look {
	struct adapt_row row;
	float *features; /* (n, 2 width); NULL: the round gave no mask */
};

static int complain(int r, const char *where, const struct diag *diag)
{
	fprintf(stderr, "few: %s: %s\n", where, diag->text[0] ? diag->text : strerror(-r));
	return r;
}

static struct prep prep_of(const struct study *study)
{
	struct prep prep = vit_native_prep(study->vit);

	prep.input_px = study->options.px;
	prep.resize = PREP_SQUASH;
	return prep;
}

static int recipe_of(struct recipe *ret_recipe, const struct study *study, struct adapt_site *site,
	const char *arm, uint64_t seed)
{
	const struct prep prep = prep_of(study);
	const char *more = study->options.recipe, *fields[] = { NULL, more };
	char objective[64];
	struct diag diag = { "" };
	int r;

	(void)snprintf(objective, sizeof(objective), "objective=%s", arm);
	fields[0] = objective;
	r = adapt_recipe(ret_recipe, study->vit, &prep, adapt_site_source(site, false).n,
		study->options.steps, fields, more ? 2 : 1, &diag);
	if (r < 0)
		return complain(r, arm, &diag);
	ret_recipe->seed = seed;
	return 0;
}

static int embed(struct look *look, struct study *study, struct adapt_site *site,
	const struct mask *mask, const char *path)
{
	const struct image_source held = folder_source(site->held);
	const size_t n_bytes = (size_t)held.n * 2 * vit_shape(study->vit)->width * sizeof(float);
	const struct prep prep = prep_of(study);
	int r;

	look->features = malloc(n_bytes);
	if (!look->features)
		return -ENOMEM;
	r = slot_apply(study->slot, mask);
	if (r == 0)
		r = judge_features(look->features, study->vit, study->slot, &prep, &held);
	return r < 0 ? r : blob_write(AT_FDCWD, path, look->features, n_bytes);
}

/* The mask's own file is there before its features are, which say that the row is done. */
static int learn(struct look *look, struct study *study, struct adapt_site *site,
	const struct recipe *recipe, const char *path)
{
	_cleanup_(mask_freep) struct mask *mask = NULL;
	const struct prep prep = prep_of(study);
	struct diag diag = { "" };
	int r;

	if (recipe) {
		r = adapt_learn(&mask, &look->row, site, &study->rows, recipe, &prep, &diag);
		if (r < 0)
			return complain(r, look->row.arm, &diag);
		printf("%s %s seed %llu: step %u of %u, density %.5f, loss ratio %.3f, %.0f "
		       "s%s%s\n",
			look->row.set, look->row.arm, (unsigned long long)look->row.seed,
			look->row.kept_step, look->row.steps, look->row.density,
			look->row.loss_ratio, look->row.seconds, mask ? "" : ", ",
			look->row.reasons);
		(void)fflush(stdout);
	}
	/* No features: what the frozen model sees is not this arm's. */
	r = recipe && !mask ? blob_write(AT_FDCWD, path, NULL, 0)
			    : embed(look, study, site, mask, path);
	if (r == 0)
		adapt_learn_done(&study->rows, &look->row);
	return r;
}

/* recipe NULL: the frozen model. */
static int look_new(struct look *look, struct study *study, struct adapt_site *site,
	const char *arm, const struct recipe *recipe)
{
	const struct prep prep = prep_of(study);
	const size_t wanted =
		(size_t)site->held->n * 2 * vit_shape(study->vit)->width * sizeof(float);
	char path[1024];
	size_t n_bytes;
	void *data;
	int r;

	*look = (struct look){ .row = adapt_site_row(site, arm, &prep, recipe) };
	adapt_rows_path(&study->rows, &look->row, "features", path);
	r = blob_read(AT_FDCWD, path, MAX_FEATURE_BYTES, &data, &n_bytes);
	if (r == -ENOENT)
		return learn(look, study, site, recipe, path);
	if (r < 0)
		return r;
	if (n_bytes == 0 && recipe) {
		free(data);
		return 0;
	}
	look->features = data;
	return n_bytes == wanted ? 0 : -EBADMSG;
}

static void look_done(struct look *look)
{
	free(look->features);
}

/** One way to ask of one model. */
struct answer {
	bool pooled, skewed;
	struct figures figures;
	struct figures_detail detail;
};
enum { N_ANSWERS = 4 };

struct answers {
	struct answer of[N_ANSWERS];
};

static void answers_done(struct answers *answers)
{
	for (uint32_t i = 0; i < N_ANSWERS; i++)
		figures_detail_done(&answers->of[i].detail);
}

/* The class token alone is the first half of a feature. */
static int ask(struct answer *answer, const struct study *study, const struct adapt_site *site,
	const float *features)
{
	const uint32_t width = vit_shape(study->vit)->width;
	const uint32_t n = site->held->n, dim = answer->pooled ? 2 * width : width;
	const struct figures_options options = {
		.seed = EPISODE_SEED,
		.n_episodes = study->options.n_episodes,
		.ratio = answer->skewed ? RATIO : 0,
		.opta = true,
	};
	_cleanup_(freep) float *rows = malloc((size_t)n * dim * sizeof(*rows));

	if (!rows)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++)
		memcpy(rows + (size_t)i * dim, features + (size_t)i * 2 * width,
			dim * sizeof(*rows));
	return figures_measure(&answer->figures, &answer->detail, rows, site->held->labels, n, dim,
		site->held->n_names, &options);
}

static int ask_all(struct answer *answers, const struct study *study, const struct adapt_site *site,
	const float *features)
{
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < N_ANSWERS; i++) {
		answers[i].pooled = i / 2;
		answers[i].skewed = i % 2;
		r = ask(&answers[i], study, site, features);
	}
	return r;
}

static void print_shots(const char *who, const struct answer *answer, unsigned shots,
	const struct figures_diff *over_frozen)
{
	const struct figures *f = &answer->figures;
	const struct figures_batch *batch = shots == 1 ? &f->batch1 : &f->batch5;

	printf("%s %-6s %-8s %u  means %.4f +- %.4f", who, answer->pooled ? "pooled" : "class",
		answer->skewed ? "10:1" : "balanced", shots, shots == 1 ? f->shot1 : f->shot5,
		shots == 1 ? f->shot1_ci : f->shot5_ci);
	if (over_frozen)
		printf(" (%+.4f, %+.4f to %+.4f)", over_frozen->diff, over_frozen->lo,
			over_frozen->hi);
	printf("  OpTA %.4f (%+.4f, %+.4f to %+.4f)  guarded %.4f (%+.4f, %+.4f to %+.4f)\n",
		batch->opta, batch->opta_gain.diff, batch->opta_gain.lo, batch->opta_gain.hi,
		batch->guarded, batch->guarded_gain.diff, batch->guarded_gain.lo,
		batch->guarded_gain.hi);
	(void)fflush(stdout);
}

/* An arm's, the last of which stays where there are too many. */
static struct verdict *verdict_of(struct study *study, const char *arm)
{
	uint32_t i = 0;

	while (i < study->n_verdicts && strcmp(study->verdicts[i].arm, arm) != 0)
		i++;
	if (i == MAX_ARMS)
		return &study->verdicts[MAX_ARMS - 1];
	if (i == study->n_verdicts)
		(void)snprintf(study->verdicts[study->n_verdicts++].arm,
			sizeof(((struct verdict *)0)->arm), "%s", arm);
	return &study->verdicts[i];
}

/* contract.md's rule, of the figure that the issue names: five shots, class tokens, class means. */
static void take_verdict(struct study *study, const struct adapt_row *row,
	const struct answer *answer, const struct figures_diff *knn,
	const struct figures_diff *shot5)
{
	struct verdict *verdict;

	if (strcmp(row->set, "neu") != 0 || answer->pooled || answer->skewed)
		return;
	verdict = verdict_of(study, row->arm);
	verdict->n_seeds++;
	verdict->n_harmful += knn->hi < -HARM;
	verdict->n_helpful += shot5->lo > 0;
}

static void take_absence(struct study *study, const struct adapt_row *row)
{
	printf("%-13s %-7s seed %llu  no candidate\n", row->set, row->arm,
		(unsigned long long)row->seed);
	if (strcmp(row->set, "neu") == 0)
		verdict_of(study, row->arm)->n_without++;
}

/* @return 0, or 1: an arm has no mask, or does harm, or micm does not help */
static int print_verdicts(const struct study *study)
{
	int missed = 0;

	for (uint32_t i = 0; i < study->n_verdicts; i++) {
		const struct verdict *v = &study->verdicts[i];
		const bool fails = v->n_without > 0 || v->n_harmful > 0;
		const bool helps = !fails && v->n_helpful == v->n_seeds;

		printf("%s at five shots on NEU: %s\n", v->arm,
			v->n_without > 0   ? "no candidate"
			: v->n_harmful > 0 ? "HARMS"
			: helps            ? "helps"
					   : "does NOT help");
		missed |= fails || (strcmp(v->arm, "micm") == 0 && !helps);
	}
	return missed;
}

/* frozen NULL: these are its answers. */
static int print_answers(struct study *study, const struct adapt_site *site,
	const struct adapt_row *row, const struct answer *answers, const struct answer *frozen)
{
	char who[96];

	(void)snprintf(who, sizeof(who), "%-13s %-7s seed %llu ", row->set, row->arm,
		(unsigned long long)row->seed);
	for (uint32_t i = 0; i < N_ANSWERS; i++) {
		struct figures_diff knn, shot1, shot5;
		int r;

		if (frozen) {
			r = figures_compare(&knn, &shot1, &shot5, &frozen[i].detail,
				&answers[i].detail, site->held->n, EPISODE_SEED);
			if (r < 0)
				return r;
			take_verdict(study, row, &answers[i], &knn, &shot5);
		}
		if (i % 2 == 0)
			printf("%s %-6s knn %.4f\n", who, answers[i].pooled ? "pooled" : "class",
				answers[i].figures.knn);
		print_shots(who, &answers[i], 1, frozen ? &shot1 : NULL);
		print_shots(who, &answers[i], 5, frozen ? &shot5 : NULL);
	}
	return 0;
}

static int compare(struct study *study, const struct adapt_site *site, const struct look *look,
	const struct answer *frozen)
{
	_cleanup_(answers_done) struct answers answers = { 0 };
	int r;

	if (study->options.learn_only)
		return 0;
	if (!look->features) {
		take_absence(study, &look->row);
		return 0;
	}
	r = ask_all(answers.of, study, site, look->features);
	return r < 0 ? r : print_answers(study, site, &look->row, answers.of, frozen);
}

static int run_arm(struct study *study, struct adapt_site *site, const struct answer *frozen,
	const char *arm, uint64_t seed)
{
	_cleanup_(look_done) struct look look = { 0 };
	struct recipe recipe;
	int r = recipe_of(&recipe, study, site, arm, seed);

	if (r == 0)
		r = look_new(&look, study, site, arm, &recipe);
	return r < 0 ? r : compare(study, site, &look, frozen);
}

static int run_arms(struct study *study, struct adapt_site *site)
{
	_cleanup_(answers_done) struct answers frozen = { 0 };
	_cleanup_(freep) char *arms = strdup(study->options.arms);
	_cleanup_(look_done) struct look look = { 0 };
	char *next = arms;
	int r = arms ? 0 : -ENOMEM;

	if (r == 0)
		r = look_new(&look, study, site, "frozen", NULL);
	if (r == 0)
		r = ask_all(frozen.of, study, site, look.features);
	if (r == 0)
		r = print_answers(study, site, &look.row, frozen.of, NULL);
	for (char *arm = strsep(&next, ","); r == 0 && arm; arm = strsep(&next, ","))
		for (uint64_t seed = 1; r == 0 && seed <= study->options.n_seeds; seed++)
			r = run_arm(study, site, frozen.of, arm, seed);
	return r;
}

static int run_set(struct study *study, const char *path)
{
	struct adapt_site site = { 0 };
	struct diag diag = { "" };
	int r;

	r = adapt_site_open(&site, study->vit, study->slot, path, 2 * study->options.px, &diag);
	if (r == 0)
		r = run_arms(study, &site);
	adapt_site_done(&site);
	return r < 0 ? complain(r, path, &diag) : 0;
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
	if (r < 0)
		return r != -ENOENT ? complain(r, path, &diag) : r;
	r = adapt_rows_open(&study->rows, study->options.folder);
	return r < 0 ? complain(r, study->options.folder, &diag) : 0;
}

static void close_study(struct study *study)
{
	adapt_rows_done(&study->rows);
	slot_free(study->slot);
	vit_free(study->vit);
	base_free(study->base);
}

static int run(struct study *study, const char *shared)
{
	_cleanup_(freep) char *sets = strdup(study->options.sets);
	char *next = sets;
	int r = sets ? 0 : -ENOMEM;

	for (char *set = strsep(&next, ","); r == 0 && set && *set; set = strsep(&next, ",")) {
		char path[4096];

		(void)snprintf(path, sizeof(path), "%s/data/%s", shared, set);
		r = run_set(study, path);
	}
	for (uint32_t i = 0; r == 0 && i < study->options.n_folders; i++)
		r = run_set(study, study->options.folders[i]);
	return r;
}

static int parse(struct options *options, int argc, char **argv)
{
	static const struct option names[] = {
		{ "sets", required_argument, NULL, 's' },
		{ "data", required_argument, NULL, 'd' },
		{ "arms", required_argument, NULL, 'a' },
		{ "seeds", required_argument, NULL, 'n' },
		{ "px", required_argument, NULL, 'p' },
		{ "steps", required_argument, NULL, 't' },
		{ "recipe", required_argument, NULL, 'r' },
		{ "folder", required_argument, NULL, 'c' },
		{ "episodes", required_argument, NULL, 'e' },
		{ "learn-only", no_argument, NULL, 'l' },
		{ NULL, 0, NULL, 0 },
	};
	static char sets[] = "neu,cifar10_test", arms[] = "swav,hpm,micm", none[] = "";
	bool sets_given = false;
	int c;

	*options = (struct options){ .sets = sets,
		.arms = arms,
		.n_seeds = 1,
		.px = INPUT_PX,
		.folder = DEFAULT_FOLDER,
		.n_episodes = N_EPISODES };
	while ((c = getopt_long(argc, argv, "", names, NULL)) != -1) {
		if (c == 's') {
			options->sets = optarg;
			sets_given = true;
		} else if (c == 'd' && options->n_folders < MAX_SETS)
			options->folders[options->n_folders++] = optarg;
		else if (c == 'a')
			options->arms = optarg;
		else if (c == 'n')
			options->n_seeds = (uint32_t)strtoul(optarg, NULL, 10);
		else if (c == 'p')
			options->px = (uint32_t)strtoul(optarg, NULL, 10);
		else if (c == 't')
			options->steps = (uint32_t)strtoul(optarg, NULL, 10);
		else if (c == 'e')
			options->n_episodes = (uint32_t)strtoul(optarg, NULL, 10);
		else if (c == 'r')
			options->recipe = optarg;
		else if (c == 'c')
			options->folder = optarg;
		else if (c == 'l')
			options->learn_only = true;
		else
			return -EINVAL;
	}
	if (options->n_folders > 0 && !sets_given)
		options->sets = none;
	return optind == argc && options->n_seeds > 0 ? 0 : -EINVAL;
}

int main(int argc, char **argv)
{
	const char *shared = getenv("KAMEN_SHARED");
	static struct study study;
	int r;

	if (parse(&study.options, argc, argv) < 0)
		return 2;
	if (!shared)
		shared = "../shared";
	r = open_study(&study, shared);
	if (r == -ENOENT) {
		printf("skipped: neither $KAMEN_SHARED nor ../shared has model and images\n");
		close_study(&study);
		return 77;
	}
	if (r == 0)
		r = run(&study, shared);
	close_study(&study);
	return r < 0 ? 1 : print_verdicts(&study);
}
