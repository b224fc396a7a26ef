/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <omp.h>
#include <string.h>

#include "bench.h"
#include "floor_step.h"
#include "learn_subject.h"
#include "model_options.h"

#define N_ROUNDS 5u
#define N_TURNS (FLOOR_N_LAYOUTS * N_ROUNDS)
#define N_WARM 2u
#define LEAST_RUNS 3u

struct learn_options {
	struct model_options model;
	const char *steps;
};

/* What is asked for, and for whom. */
struct asked {
	struct ctl *ctl;
	const char *precisions;
	struct learn_subject_options subject;
	uint32_t n_turn; /* steps measured at a time */
};

struct figures {
	double step_s, floor_s;
	struct round_progress progress;
};

static int run_steps(struct learn_subject *s, struct samples *samples, uint32_t n,
	struct round_progress *progress)
{
	int r = 0;

	for (uint32_t i = 0; i < n && r >= 0; i++) {
		uint64_t before = bench_now_ns();

		r = round_step(s->round, progress);
		if (r >= 0)
			r = samples_add(samples, (double)(bench_now_ns() - before) * 1e-9);
	}
	return r < 0 ? r : 0;
}

static int run_floor(struct floor_step *floor, uint32_t n, double *lowest)
{
	_cleanup_(samples_done) struct samples samples = { 0 };
	double median;
	int r = 0;

	for (uint32_t i = 0; i < n && r == 0; i++) {
		uint64_t before = bench_now_ns();

		r = floor_step_run(floor);
		if (r == 0)
			r = samples_add(&samples, (double)(bench_now_ns() - before) * 1e-9);
	}
	median = samples_percentile(&samples, .5);
	if (r == 0 && (*lowest == 0 || median < *lowest))
		*lowest = median;
	return r;
}

static struct floor_step_options floor_of(const struct learn_subject *s, enum floor_layout layout)
{
	const struct recipe *recipe = &s->recipe;

	return (struct floor_step_options){
		.shape = vit_shape(s->vit),
		.layout = layout,
		.precision = recipe->precision,
		.views = { { 2 * recipe->batch, recipe->large_px },
			{ recipe->n_small * recipe->batch, recipe->small_px } },
		/* Of both large views. */
		.head = { 2 * recipe->queue, recipe->head_dim, recipe->n_prototypes },
	};
}

/* Steps and floors take turns, so that a slow moment of the machine meets both. */
static int measure(struct learn_subject *s, uint32_t n_turn, struct figures *ret_figures)
{
	const uint32_t n_floor = n_turn > LEAST_RUNS ? n_turn : LEAST_RUNS;
	_cleanup_(samples_done) struct samples warm = { 0 }, steps = { 0 };
	struct figures figures = { 0 };
	int r = run_steps(s, &warm, N_WARM, &figures.progress);

	for (unsigned layout = 0; layout < FLOOR_N_LAYOUTS && r == 0; layout++) {
		_cleanup_(floor_step_freep) struct floor_step *floor = NULL;
		const struct floor_step_options options = floor_of(s, layout);

		r = floor_step_new(&floor, &options);
		if (r == 0)
			r = floor_step_run(floor);
		for (unsigned i = 0; i < N_ROUNDS && r == 0; i++) {
			r = run_steps(s, &steps, n_turn, &figures.progress);
			if (r == 0)
				r = run_floor(floor, n_floor, &figures.floor_s);
		}
	}
	figures.step_s = samples_percentile(&steps, .5);
	*ret_figures = figures;
	return r;
}

static json_t *row_of(
	const struct learn_subject *s, const char *model, const struct figures *figures)
{
	const struct recipe *recipe = &s->recipe;
	json_t *row = json_object();

	(void)json_object_set_new(row, "model", json_string(model));
	(void)json_object_set_new(row, "precision", json_string(precision_name(recipe->precision)));
	(void)json_object_set_new(row, "batch", json_integer(recipe->batch));
	(void)json_object_set_new(row, "large_px", json_integer(recipe->large_px));
	(void)json_object_set_new(row, "small_px", json_integer(recipe->small_px));
	(void)json_object_set_new(row, "n_small", json_integer(recipe->n_small));
	(void)json_object_set_new(row, "step_s", json_real(figures->step_s));
	(void)json_object_set_new(row, "images_per_s", json_real(recipe->batch / figures->step_s));
	(void)json_object_set_new(row, "gemm_floor_s", json_real(figures->floor_s));
	(void)json_object_set_new(
		row, "ratio_to_floor", json_real(figures->step_s / figures->floor_s));
	(void)json_object_set_new(row, "loss_ratio", output_number(figures->progress.loss_ratio));
	(void)json_object_set_new(row, "density", json_real(figures->progress.density));
	(void)json_object_set_new(row, "threads", json_integer(omp_get_max_threads()));
	(void)json_object_set_new(row, "isa", json_string(vit_isa(s->vit)));
	bench_put_machine(row);
	return row;
}

static int bench_one(const struct asked *asked)
{
	const struct learn_subject_options *options = &asked->subject;
	const char *model = options->file ? options->file : options->random;
	_cleanup_(learn_subject_done) struct learn_subject s = { 0 };
	struct diag diag = { 0 };
	struct figures figures = { 0 };
	int r = learn_subject_init(&s, options, &diag);

	if (r == 0)
		r = measure(&s, asked->n_turn, &figures);
	if (r < 0)
		return ctl_fail(asked->ctl, EXIT_FAILED, "%s: %s", model,
			*diag.text ? diag.text : strerror(-r));
	return output_row(asked->ctl, row_of(&s, model, &figures), true);
}

static int run_precision(void *data, const char *name)
{
	struct asked one = *(const struct asked *)data;

	if (precision_parse(&one.subject.precision, name) < 0 ||
		one.subject.precision == PRECISION_INT8)
		return ctl_fail(one.ctl, EXIT_USAGE, "--precision %s: not f32 or bf16", name);
	return bench_one(&one);
}

static int run_model(void *data, const char *name)
{
	struct asked one = *(const struct asked *)data;

	one.subject.random = name;
	return bench_each(one.precisions, run_precision, &one);
}

int learn_run(struct ctl *ctl, int argc, char **argv)
{
	struct learn_options o = { 0 };
	const struct option_spec specs[] = {
		MODEL_OPTION_SPECS(o.model, "images a step, else the default recipe's",
			"a site's input; else the model's own"),
		{ "steps", "N", "measured, about, 20", &o.steps, NULL },
	};
	unsigned long long steps;
	uint32_t batch, px;
	struct asked asked;
	int first, status;

	if (!options_parse(ctl, argc, argv, specs, ARRAY_SIZE(specs), 0, 0, &first, &status))
		return status;
	if (!bench_number(ctl, "steps", o.steps, 1, 10000, 20, &steps) ||
		!model_options_take(ctl, &o.model, 2, 0, &batch, &px))
		return EXIT_USAGE;
	asked = (struct asked){
		.ctl = ctl,
		.precisions = o.model.precisions,
		.subject = { .file = o.model.file, .batch = batch, .px = px },
		.n_turn = ((uint32_t)steps + N_TURNS - 1) / N_TURNS,
	};
	asked.subject.n_steps = N_WARM + N_TURNS * asked.n_turn;
	return o.model.file ? bench_each(asked.precisions, run_precision, &asked)
			    : bench_each(o.model.random, run_model, &asked);
}
