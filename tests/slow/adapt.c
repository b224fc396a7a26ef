/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Does a mask pay? Learns every set (contract.md's split) from its learning part and prints, on the
 * held part, what is gained over the frozen model at the same size and at its native one. A row
 * that is finished is not run again, whatever was run in between.
 *
 *   adapt [--sets A,B] [--data DIR]... [--px N]... [--native] [--resize squash|crop] [--steps N]
 *         [--set FIELD=VALUE]... [--first SEED] [--seeds N] [--arms adapted,cascade] [--csv FILE]
 *         [--table | --gate]
 *
 * --data DIR: any folder of class folders, instead of the sets that come with the project; --set: a
 * field of the recipe; --table:
 * run nothing, print what is there; --gate: ask the
 * gate again about every mask that is there. Without --px and --native: 112 px, and NEU at native size too, without a
 * cascade.
 * Exit 0: nothing that the gate lets through is harmful, and with the defaults NEU's gains are what
 * issue 3 wants; 1: not so, or an error; 77: no model or no images here.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "adapt_cascade.h"
#include "adapt_learn.h"
#include "adapt_table.h"

#define INPUT_PX 112u
#define MAX_SETS 16u
#define MAX_SIZES 8u
#define MAX_FIELDS 32u
#define DEFAULT_CSV "build/release/check-slow/adapt.csv"

struct options {
	enum prep_resize resize;
	uint32_t sizes[MAX_SIZES], n_sizes; /* 0: the native one */
	uint32_t steps, first_seed, n_seeds;
	const char *sets; /* of the project's data; NULL: the default ones */
	const char *folders[MAX_SETS];
	uint32_t n_folders;
	const char *fields[MAX_FIELDS]; /* NAME=VALUE */
	uint32_t n_fields;
	bool adapted, cascade, table_only, gate_again;
	const char *csv;
};

/** One set at one size: what there is to do, and what has been done. */
struct task {
	char path[512];
	uint32_t px;
	bool at_native;
};

struct study {
	struct options options;
	struct base *base;
	struct vit *vit;
	struct slot *slot;
	struct adapt_rows rows;
	struct task tasks[MAX_SETS * MAX_SIZES];
	uint32_t n_tasks;
};

static int complain(int r, const char *where, const struct diag *diag)
{
	fprintf(stderr, "adapt: %s: %s\n", where, diag->text[0] ? diag->text : strerror(-r));
	return r;
}

static struct prep prep_of(const struct study *study, enum adapt_arm arm, uint32_t px)
{
	struct prep prep = vit_native_prep(study->vit);

	if (arm != ADAPT_NATIVE) {
		prep.input_px = px;
		prep.resize = study->options.resize;
	}
	return prep;
}

static int recipe_of(struct recipe *ret_recipe, struct study *study, struct adapt_site *site,
	const struct prep *prep, uint64_t seed)
{
	const uint32_t n_images = adapt_site_source(site, false).n;
	const struct options *options = &study->options;
	struct diag diag = { "" };
	int r = adapt_recipe(ret_recipe, study->vit, prep, n_images, options->steps,
		options->fields, options->n_fields, &diag);

	if (r < 0)
		return complain(r, "--set", &diag);
	ret_recipe->seed = seed;
	return 0;
}

/* The columns by which a row is known. */
static struct adapt_row name_row(const struct adapt_site *site, enum adapt_arm arm,
	const struct prep *prep, const struct recipe *recipe)
{
	bool learnt = arm >= ADAPT_ADAPTED;

	return adapt_site_row(site, adapt_arm_names[arm], prep, learnt ? recipe : NULL);
}

static void print_row(const struct adapt_row *row)
{
	printf("%s %s %u px seed %llu: knn %.4f shot1 %.4f shot5 %.4f linear %.4f, %.2f ms, "
	       "density %.5f, %llu bytes, %.0f s%s%s\n",
		row->set, row->arm, row->px, (unsigned long long)row->seed, row->knn, row->shot1,
		row->shot5, row->linear, row->ms, row->density, (unsigned long long)row->n_bytes,
		row->seconds, row->passed == 0 ? ", held: " : "",
		row->passed == 0 ? row->reasons : "");
	(void)fflush(stdout);
}

static int run_row(struct study *study, struct adapt_site *site, struct adapt_row *row,
	const struct recipe *recipe, const struct prep *prep)
{
	_cleanup_(mask_freep) struct mask *mask = NULL;
	_cleanup_(freep) float *rows = NULL;
	struct adapt_detail detail = { 0 };
	struct diag diag = { "" };
	int r = 0;

	if (strcmp(row->recipe, "-") != 0)
		r = adapt_learn(&mask, row, site, &study->rows, recipe, prep, &diag);
	if (r == 0)
		r = adapt_site_embed(&rows, &row->ms, site, mask, prep);
	if (r == 0)
		r = adapt_site_measure(row, &detail, site, rows, vit_shape(study->vit)->width);
	/* A round without a candidate has said why; its figures are the frozen model's. */
	if (r == 0)
		r = adapt_site_judge(row, site, mask, recipe, prep);
	if (r == 0)
		r = adapt_rows_add(&study->rows, row, &detail);
	adapt_detail_done(&detail);
	if (r < 0)
		return complain(r, row->set, &diag);
	if (row->seed)
		adapt_learn_done(&study->rows, row);
	print_row(row);
	return 0;
}

/* A gate that has changed may think otherwise of an old mask. */
static int gate_again(struct study *study, struct adapt_site *site, const struct adapt_row *found,
	const struct recipe *recipe, const struct prep *prep)
{
	_cleanup_(mask_freep) struct mask *mask = NULL;
	struct adapt_detail detail = { 0 };
	struct adapt_row row = *found;
	struct diag diag = { "" };
	int r;

	r = adapt_learnt(&mask, site, &study->rows, found);
	if (r == 0 && !mask)
		return 0;
	if (r == 0)
		r = adapt_rows_detail(&detail, &study->rows, found);
	if (r == 0)
		r = adapt_site_judge(&row, site, mask, recipe, prep);
	if (r == 0)
		r = adapt_rows_add(&study->rows, &row, &detail);
	adapt_detail_done(&detail);
	if (r < 0)
		return complain(r, row.set, &diag);
	print_row(&row);
	return 0;
}

/* Finds the row, or runs it. */
static int settle(struct study *study, struct adapt_bout *bout, struct adapt_site *site,
	enum adapt_arm arm, uint32_t px, uint64_t seed)
{
	struct prep prep = prep_of(study, arm, px);
	const struct adapt_row *found;
	struct recipe recipe;
	struct adapt_row row;
	int r;

	r = recipe_of(&recipe, study, site, &prep, seed);
	if (r < 0)
		return r;
	row = name_row(site, arm, &prep, &recipe);
	found = adapt_rows_find(&study->rows, &row);
	if (!found && study->options.table_only)
		return 0;
	if (!found || (study->options.gate_again && arm == ADAPT_ADAPTED)) {
		r = found ? gate_again(study, site, found, &recipe, &prep)
			  : run_row(study, site, &row, &recipe, &prep);
		if (r < 0)
			return r;
		found = adapt_rows_find(&study->rows, &row);
	}
	bout->rows[arm][bout->n_seeds[arm]++] = (uint32_t)(found - study->rows.rows);
	return 0;
}

static int run_arms(struct study *study, struct adapt_bout *bout, struct adapt_site *site,
	const struct task *task)
{
	const struct options *options = &study->options;
	int r;

	r = settle(study, bout, site, ADAPT_FROZEN, task->px, 1);
	if (r == 0)
		r = settle(study, bout, site, ADAPT_NATIVE, task->px, 1);
	for (uint32_t i = 0; r == 0 && options->adapted && i < options->n_seeds; i++)
		r = settle(study, bout, site, ADAPT_ADAPTED, task->px, options->first_seed + i);
	return r;
}

/* One cascade, looked at in both ways. */
static int run_cascade(struct study *study, struct adapt_site *site, struct adapt_row *modes,
	const struct adapt_row *dispatcher, const struct recipe *recipe, const struct prep *prep)
{
	_cleanup_(cascade_freep) struct cascade *cascade = NULL;
	struct diag diag = { "" };
	int r;

	r = adapt_cascade(&cascade, &modes[CASCADE_CONDITIONAL], site, &study->rows, dispatcher,
		recipe, prep, &diag);
	if (r < 0)
		return complain(r, site->name, &diag);
	for (enum cascade_mode mode = 0; r == 0 && mode < CASCADE_N_MODES; mode++) {
		const struct adapt_row *learnt = &modes[CASCADE_CONDITIONAL];
		struct adapt_row row = modes[mode];
		_cleanup_(freep) float *rows = NULL;
		struct adapt_detail detail = { 0 };

		row.n_bytes = learnt->n_bytes + cascade_bytes(cascade, mode);
		row.steps = learnt->steps;
		row.density = learnt->density;
		row.seconds = learnt->seconds;
		r = adapt_cascade_embed(&rows, &row.ms, site, cascade, mode);
		if (r == 0)
			r = adapt_site_measure(&row, &detail, site, rows, cascade_width(cascade));
		if (r == 0)
			r = adapt_rows_add(&study->rows, &row, &detail);
		adapt_detail_done(&detail);
		if (r == 0)
			print_row(&row);
	}
	return r < 0 ? complain(r, site->name, &diag) : 0;
}

static int settle_cascade(
	struct study *study, struct adapt_bout *bout, struct adapt_site *site, uint32_t i)
{
	const struct adapt_row dispatcher = study->rows.rows[bout->rows[ADAPT_ADAPTED][i]];
	struct prep prep = prep_of(study, ADAPT_ADAPTED, dispatcher.px);
	struct adapt_row modes[CASCADE_N_MODES];
	struct recipe recipe;
	int r = recipe_of(&recipe, study, site, &prep, dispatcher.seed);
	bool missing = false;

	/* Without a mask there is nothing that could dispatch. */
	if (r < 0 || dispatcher.n_bytes == 0)
		return r;
	for (enum cascade_mode mode = 0; mode < CASCADE_N_MODES; mode++) {
		modes[mode] = name_row(site, ADAPT_ONE + mode, &prep, &recipe);
		missing = missing || !adapt_rows_find(&study->rows, &modes[mode]);
	}
	if (missing && study->options.table_only)
		return 0;
	if (missing)
		r = run_cascade(study, site, modes, &dispatcher, &recipe, &prep);
	for (enum cascade_mode mode = 0; r == 0 && mode < CASCADE_N_MODES; mode++) {
		const struct adapt_row *found = adapt_rows_find(&study->rows, &modes[mode]);
		enum adapt_arm arm = ADAPT_ONE + mode;

		bout->rows[arm][bout->n_seeds[arm]++] = (uint32_t)(found - study->rows.rows);
	}
	return r;
}

static int run_cascades(struct study *study, struct adapt_bout *bout, struct adapt_site *site)
{
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < bout->n_seeds[ADAPT_ADAPTED]; i++)
		r = settle_cascade(study, bout, site, i);
	return r;
}

/* One pass over a set: first masks, later what stands on them. */
static int run_task(
	struct study *study, struct adapt_bout *bout, const struct task *task, bool with_cascades)
{
	uint32_t native = vit_native_prep(study->vit).input_px;
	uint32_t larger = task->px > native ? task->px : native;
	struct adapt_site site;
	struct diag diag = { "" };
	int r;

	r = adapt_site_open(&site, study->vit, study->slot, task->path, 2 * larger, &diag);
	if (r < 0)
		(void)complain(r, task->path, &diag);
	else
		r = with_cascades ? run_cascades(study, bout, &site)
				  : run_arms(study, bout, &site, task);
	adapt_site_done(&site);
	return r;
}

static struct adapt_bout bout_of(const struct options *options, const struct task *task)
{
	return (struct adapt_bout){
		.is_full = options->steps == 0 && options->n_fields == 0 &&
			   options->first_seed == 1 && options->n_seeds == 3,
		.at_native = task->at_native,
	};
}

/* Cascades take longest: every set's masks come before any of them. */
static int run_tasks(struct study *study, struct adapt_bout *bouts)
{
	const struct options *options = &study->options;
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < study->n_tasks; i++) {
		bouts[i] = bout_of(options, &study->tasks[i]);
		r = run_task(study, &bouts[i], &study->tasks[i], false);
	}
	for (uint32_t i = 0; r == 0 && options->cascade && i < study->n_tasks; i++)
		if (options->n_sizes > 0 || !study->tasks[i].at_native)
			r = run_task(study, &bouts[i], &study->tasks[i], true);
	return r;
}

/* Tables last: they need every row, and stand together at the end of a long log. */
static int run(struct study *study)
{
	_cleanup_(freep) struct adapt_bout *bouts = calloc(study->n_tasks, sizeof(*bouts));
	int r, missed = 0;

	if (!bouts)
		return -ENOMEM;
	r = run_tasks(study, bouts);
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < study->n_tasks; i++) {
		if (bouts[i].n_seeds[ADAPT_FROZEN] == 0 || bouts[i].n_seeds[ADAPT_NATIVE] == 0) {
			printf("\n%s, %u px: not run yet\n", study->tasks[i].path,
				study->tasks[i].px);
			missed = 1;
			continue;
		}
		r = adapt_table_print(&study->rows, &bouts[i]);
		if (r < 0)
			return complain(r, study->tasks[i].path, &(struct diag){ "" });
		missed |= r;
	}
	return missed;
}

static void add_task(struct study *study, const char *shared, const char *name, uint32_t px)
{
	uint32_t native = vit_native_prep(study->vit).input_px;
	struct task *task = &study->tasks[study->n_tasks];

	if (study->n_tasks == ARRAY_SIZE(study->tasks))
		return;
	*task = (struct task){ .px = px ? px : native, .at_native = px == 0 || px == native };
	if (shared)
		(void)snprintf(task->path, sizeof(task->path), "%s/data/%s", shared, name);
	else
		(void)snprintf(task->path, sizeof(task->path), "%s", name);
	study->n_tasks++;
}

static void add_sizes(struct study *study, const char *shared, const char *name)
{
	const struct options *options = &study->options;

	for (uint32_t i = 0; i < options->n_sizes; i++)
		add_task(study, shared, name, options->sizes[i]);
	if (options->n_sizes > 0)
		return;
	add_task(study, shared, name, INPUT_PX);
	if (shared && strcmp(name, "neu") == 0)
		add_task(study, shared, name, 0);
}

/* DeepPCB's two classes are nearly the same images in pairs: its figures say little, but what is
 * served there must not be harmful either. */
static int add_sets(struct study *study, const char *shared)
{
	const char *sets = study->options.sets ? study->options.sets : "neu,cifar10_test,deeppcb";
	_cleanup_(freep) char *names = strdup(sets);
	char *next = names;

	if (!names)
		return -ENOMEM;
	if (study->options.n_folders == 0 || study->options.sets)
		for (char *name = strsep(&next, ","); name; name = strsep(&next, ","))
			add_sizes(study, shared, name);
	for (uint32_t i = 0; i < study->options.n_folders; i++)
		add_sizes(study, NULL, study->options.folders[i]);
	return 0;
}

static int open_study(struct study *study, const char *shared)
{
	struct diag diag = { "" };
	char path[512];
	int r;

	(void)snprintf(
		path, sizeof(path), "%s/models/vit_tiny_patch16_224/model.safetensors", shared);
	r = base_load(&study->base, path, &diag);
	if (r == 0)
		r = vit_new(&study->vit, study->base, NULL, &diag);
	if (r == 0)
		r = vit_slot_new(&study->slot, study->vit, SLOT_INFER);
	if (r < 0)
		return complain(r, path, &diag);
	r = adapt_rows_open(&study->rows, study->options.csv);
	if (r == -EBADMSG)
		diag_set(&diag, EBADMSG, "other columns than this program's: move it away");
	if (r < 0)
		return complain(r, study->options.csv, &diag);
	return add_sets(study, shared);
}

static void close_study(struct study *study)
{
	adapt_rows_done(&study->rows);
	slot_free(study->slot);
	vit_free(study->vit);
	base_free(study->base);
}

static uint32_t number(const char *text)
{
	return (uint32_t)strtoul(text, NULL, 10);
}

static int add_size(struct options *options, uint32_t px)
{
	if (options->n_sizes == MAX_SIZES)
		return -EINVAL;
	options->sizes[options->n_sizes++] = px;
	return 0;
}

static int take(struct options *options, int option, const char *value)
{
	switch (option) {
	case 'd':
		if (options->n_folders == MAX_SETS)
			return -EINVAL;
		options->folders[options->n_folders++] = value;
		return 0;
	case 'p':
		return number(value) ? add_size(options, number(value)) : -EINVAL;
	case 'n':
		return add_size(options, 0);
	case 'r':
		options->resize = strcmp(value, "crop") == 0 ? PREP_CROP : PREP_SQUASH;
		return 0;
	case 's':
		options->steps = number(value);
		return 0;
	case 'f':
		options->first_seed = number(value);
		return 0;
	case 'k':
		options->n_seeds = number(value);
		return options->n_seeds <= ADAPT_MAX_SEEDS ? 0 : -EINVAL;
	case 'o':
		if (options->n_fields == MAX_FIELDS)
			return -EINVAL;
		options->fields[options->n_fields++] = value;
		return 0;
	case 'a':
		options->cascade = strstr(value, "cascade") != NULL;
		options->adapted = options->cascade || strstr(value, "adapted");
		return 0;
	case 'S':
		options->sets = value;
		return 0;
	case 'c':
		options->csv = value;
		return 0;
	case 't':
		options->table_only = true;
		return 0;
	case 'g':
		options->gate_again = true;
		return 0;
	default:
		return -EINVAL;
	}
}

static int parse(struct options *options, int argc, char **argv)
{
	static const struct option names[] = {
		{ "data", required_argument, NULL, 'd' },
		{ "sets", required_argument, NULL, 'S' },
		{ "px", required_argument, NULL, 'p' },
		{ "native", no_argument, NULL, 'n' },
		{ "resize", required_argument, NULL, 'r' },
		{ "steps", required_argument, NULL, 's' },
		{ "first", required_argument, NULL, 'f' },
		{ "seeds", required_argument, NULL, 'k' },
		{ "set", required_argument, NULL, 'o' },
		{ "arms", required_argument, NULL, 'a' },
		{ "csv", required_argument, NULL, 'c' },
		{ "table", no_argument, NULL, 't' },
		{ "gate", no_argument, NULL, 'g' },
		{ NULL, 0, NULL, 0 },
	};
	int c, r = 0;

	*options = (struct options){
		.resize = PREP_SQUASH, .first_seed = 1, .n_seeds = 3, .csv = DEFAULT_CSV
	};
	options->adapted = options->cascade = true;
	while (r == 0 && (c = getopt_long(argc, argv, "", names, NULL)) != -1)
		r = take(options, c, optarg);
	return optind < argc ? -EINVAL : r;
}

int main(int argc, char **argv)
{
	const char *shared = getenv("KAMEN_SHARED");
	static struct study study;
	int r;

	if (parse(&study.options, argc, argv) < 0)
		return 2;
	r = open_study(&study, shared ? shared : "../shared");
	if (r == 0)
		r = run(&study);
	close_study(&study);
	if (r == -ENOENT) {
		printf("skipped: neither $KAMEN_SHARED nor ../shared has model and images\n");
		return 77;
	}
	return r < 0 ? 1 : r;
}
