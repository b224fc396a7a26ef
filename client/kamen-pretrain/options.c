/* SPDX-License-Identifier: Apache-2.0 */
#include "options.h"

#include <stdio.h>
#include <string.h>

#include "model/random.h"
#include "shm_layout.h"

/* Texts as they were given; NULL: not. */
struct texts {
	const char *out, *from, *checkpoint, *recipe, *shape, *patch, *class_block, *objective,
		*part, *px, *steps, *batch, *seed, *every, *report, *weights, *worth, *anew;
};

static bool take_number(const struct ctl *ctl, const char *option, const char *text,
	unsigned long long least, unsigned long long most, uint32_t *number)
{
	unsigned long long value;

	if (!text)
		return true;
	if (!number_parse(text, most, &value) || value < least) {
		(void)ctl_fail(ctl, EXIT_USAGE, "--%s %s: not a number of %llu to %llu", option,
			text, least, most);
		return false;
	}
	*number = (uint32_t)value;
	return true;
}

/* What kamend would not serve is not learnt for hours. */
static bool width_ok(const struct ctl *ctl, const char *text, uint32_t width)
{
	if (width > SHM_MAX_EMBEDDING)
		(void)ctl_fail(ctl, EXIT_USAGE,
			"--shape %s: a width of %u, and kamend serves at most %u", text, width,
			SHM_MAX_EMBEDDING);
	return width <= SHM_MAX_EMBEDDING;
}

/* A name, or WIDTH,DEPTH,HEADS. */
static bool take_shape(const struct ctl *ctl, const char *text, struct vit_shape *shape)
{
	unsigned width, depth, heads;
	char rest;

	if (random_vit_shape(shape, text) < 0) {
		if (sscanf(text, "%u,%u,%u%c", &width, &depth, &heads, &rest) != 3 || width == 0 ||
			depth == 0 || depth > 256 || heads == 0 || width % heads) {
			(void)ctl_fail(ctl, EXIT_USAGE,
				"--shape %s: neither vit_t, vit_s, vit_b nor WIDTH,DEPTH,HEADS",
				text);
			return false;
		}
		if (!width_ok(ctl, text, width))
			return false;
		*shape = (struct vit_shape){
			.width = width,
			.depth = depth,
			.n_heads = heads,
			.mlp = 4 * width,
			.patch = 16,
		};
	}
	shape->n_classes = 0;
	return true;
}

static bool take_choice(const struct ctl *ctl, const char *option, const char *text,
	const char *const *names, unsigned *choice)
{
	for (unsigned i = 0; text && names[i]; i++)
		if (strcmp(text, names[i]) == 0) {
			*choice = i;
			return true;
		}
	if (text)
		(void)ctl_fail(ctl, EXIT_USAGE, "--%s %s: unknown; see --help", option, text);
	return !text;
}

static bool take_objective(
	const struct ctl *ctl, const char *text, enum recipe_objective *objective)
{
	struct recipe recipe = { 0 };
	struct diag diag = { "" };

	if (text && recipe_set(&recipe, "objective", text, &diag) < 0) {
		(void)ctl_fail(ctl, EXIT_USAGE, "--objective: %s", diag.text);
		return false;
	}
	*objective = recipe.objective;
	return true;
}

/* Options that say two things at once. */
static bool agree(const struct ctl *ctl, const struct texts *t, enum folder_part part)
{
	const struct {
		const char *name, *text;
	} of_scratch[] = { { "shape", t->shape }, { "patch", t->patch },
		{ "class-block", t->class_block } };

	for (unsigned i = 0; i < sizeof(of_scratch) / sizeof(of_scratch[0]); i++)
		if (t->from && of_scratch[i].text) {
			(void)ctl_fail(ctl, EXIT_USAGE, "--%s: the model of --from has its own",
				of_scratch[i].name);
			return false;
		}
	if (t->worth && part != FOLDER_LEARN) {
		(void)ctl_fail(ctl, EXIT_USAGE,
			"--eval: what it judges by, the held part, is not learnt from: --part %s",
			t->part);
		return false;
	}
	return true;
}

static bool take_all(const struct ctl *ctl, const struct texts *t, struct pretrain_options *o)
{
	static const char *const parts[] = { "all", "learn", "held", NULL };
	static const char *const weights[] = { "student", "teacher", NULL };
	/* A model is not judged by images that it has learnt. */
	unsigned part = t->worth ? FOLDER_LEARN : FOLDER_ALL, teacher;
	unsigned long long seed = 1;

	if (!take_shape(ctl, t->shape ? t->shape : "vit_t", &o->shape) ||
		!take_number(ctl, "patch", t->patch, 2, 64, &o->shape.patch) ||
		!take_number(ctl, "class-block", t->class_block, 0, o->shape.depth - 1,
			&o->shape.class_block) ||
		!take_objective(ctl, t->objective, &o->objective) ||
		!take_choice(ctl, "part", t->part, parts, &part) || !agree(ctl, t, part) ||
		!take_number(ctl, "px", t->px, 8, 1024, &o->px) ||
		!take_number(ctl, "steps", t->steps, 1, 100000, &o->steps) ||
		!take_number(ctl, "batch", t->batch, 2, 1024, &o->batch) ||
		!take_number(ctl, "every", t->every, 1, 86400, &o->every_s) ||
		!take_number(ctl, "report", t->report, 1, 100000, &o->report))
		return false;
	/* Who compares what a clean view says with a moving average serves that (algorithms.md 4.5). */
	teacher = o->objective == RECIPE_MICM;
	if (!take_choice(ctl, "weights", t->weights, weights, &teacher))
		return false;
	if (t->seed && !number_parse(t->seed, UINT64_MAX, &seed)) {
		(void)ctl_fail(ctl, EXIT_USAGE, "--seed %s: not a number", t->seed);
		return false;
	}
	o->part = part;
	o->teacher = teacher;
	o->seed = seed;
	o->has_class_block = t->class_block;
	o->worth = t->worth;
	o->anew = t->anew;
	o->out = t->out;
	o->from = t->from;
	o->checkpoint = t->checkpoint;
	o->recipe = t->recipe ? t->recipe : "";
	return true;
}

bool pretrain_options_parse(struct pretrain_options *ret_options, struct ctl *ctl, int argc,
	char **argv, int *ret_status)
{
	struct pretrain_options options = { .every_s = 60, .report = 10 };
	struct texts t = { 0 };
	const struct option_spec specs[] = {
		{ "out", "FILE", "the model, as safetensors", &t.out, NULL },
		{ "objective", "NAME", "what it learns by, swav", &t.objective, NULL },
		{ "shape", "SHAPE", "vit_t (the default), vit_s, vit_b or WIDTH,DEPTH,HEADS",
			&t.shape, NULL },
		{ "patch", "PX", "side of a patch, 16", &t.patch, NULL },
		{ "class-block", "N", "the class token enters behind N blocks", &t.class_block,
			NULL },
		{ "from", "FILE", "goes on from a model instead of from scratch", &t.from, NULL },
		{ "px", "PX", "side of the input, 96 or the model's own", &t.px, NULL },
		{ "steps", "N", "by the objective: 100, of hpm 400", &t.steps, NULL },
		{ "batch", "N", "images a step", &t.batch, NULL },
		{ "seed", "N", "of everything random, 1", &t.seed, NULL },
		{ "part", "PART", "of the images: all, learn (with --eval) or held", &t.part,
			NULL },
		{ "recipe", "TEXT", "NAME=VALUE...: kamend.conf(5), RECIPE", &t.recipe, NULL },
		{ "weights", "WHOSE", "written: student's, or teacher's (micm)", &t.weights, NULL },
		{ "checkpoint", "FILE", "what it resumes from, OUT.round", &t.checkpoint, NULL },
		{ "every", "SECONDS", "between checkpoints, 60", &t.every, NULL },
		{ "anew", NULL, "from the start; overwrites a checkpoint that is there", &t.anew,
			NULL },
		{ "report", "STEPS", "between rows of progress, 10", &t.report, NULL },
		{ "eval", NULL, "knn and shots of the held part, learning on the rest", &t.worth,
			NULL },
	};
	int first;

	if (!options_parse(ctl, argc, argv, specs, ARRAY_SIZE(specs), 1, 1, &first, ret_status))
		return false;
	*ret_status = EXIT_USAGE;
	if (!t.out) {
		(void)ctl_fail(ctl, EXIT_USAGE, "wants --out FILE; see --help");
		return false;
	}
	if (!take_all(ctl, &t, &options))
		return false;
	options.folder = argv[first];
	*ret_options = options;
	return true;
}
