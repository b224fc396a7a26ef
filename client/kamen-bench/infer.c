/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>

#include "bench.h"
#include "floor.h"
#include "model_options.h"
#include "subject.h"

#define N_ROUNDS 5
#define LEAST_RUNS 10

struct infer_options {
	struct model_options model;
	const char *seconds;
};

struct asked {
	uint32_t batch, px;
	uint64_t round_ns; /* of one measurement, of which there are 20 */
	const char *precisions;
	enum precision precision;
};

typedef int (*run_fn)(void *data);

/* Milliseconds a run, for about a round's time. */
static int measure(struct samples *samples, uint64_t round_ns, run_fn run, void *data)
{
	uint64_t begin = bench_now_ns(), now = begin;
	int r = 0;

	for (unsigned i = 0; r == 0 && (i < LEAST_RUNS || now - begin < round_ns); i++) {
		uint64_t before = bench_now_ns();

		r = run(data);
		now = bench_now_ns();
		if (r == 0)
			r = samples_add(samples, (double)(now - before) * 1e-6);
	}
	return r;
}

static int run_subject(void *data)
{
	return subject_run(data);
}

static int run_floor(void *data)
{
	return floor_run(data);
}

struct figures {
	double ms_p50, floor_ms;
};

/* Model and floors take turns, so that a slow moment of the machine meets both. */
static int measure_all(struct subject *s, uint64_t round_ns, struct figures *ret_figures)
{
	_cleanup_(samples_done) struct samples model = { 0 };
	double lowest = 0;
	int r = 0;

	for (unsigned layout = 0; layout < FLOOR_N_LAYOUTS && r == 0; layout++) {
		_cleanup_(floor_freep) struct floor *floor = NULL;

		r = floor_new(&floor, &(struct floor_options){
					      .shape = vit_shape(s->vit),
					      .batch = s->batch,
					      .px = s->prep.input_px,
					      .layout = layout,
					      .precision = s->precision,
				      });
		if (r == 0)
			r = floor_run(floor);
		for (unsigned round = 0; round < N_ROUNDS && r == 0; round++) {
			_cleanup_(samples_done) struct samples products = { 0 };
			double median;

			r = measure(&model, round_ns, run_subject, s);
			if (r == 0)
				r = measure(&products, round_ns, run_floor, floor);
			median = samples_percentile(&products, .5);
			if (r == 0 && (lowest == 0 || median < lowest))
				lowest = median;
		}
	}
	ret_figures->ms_p50 = samples_percentile(&model, .5);
	ret_figures->floor_ms = lowest;
	return r;
}

static int bench_one(
	struct ctl *ctl, const struct asked *asked, const char *file, const char *random)
{
	_cleanup_(subject_done) struct subject s = { 0 };
	struct diag diag = { 0 };
	struct figures f = { 0 };
	json_t *row;
	const struct subject_options options = { file, random, asked->batch, asked->px,
		asked->precision };
	int r = subject_init(&s, &options, &diag);

	if (r == 0)
		r = subject_run(&s);
	if (r == 0)
		r = measure_all(&s, asked->round_ns, &f);
	if (r < 0)
		return ctl_fail(ctl, EXIT_FAILED, "%s: %s", file ? file : random,
			*diag.text ? diag.text : strerror(-r));
	row = json_object();
	(void)json_object_set_new(row, "model", json_string(file ? file : random));
	(void)json_object_set_new(row, "precision", json_string(precision_name(s.precision)));
	(void)json_object_set_new(row, "batch", json_integer(s.batch));
	(void)json_object_set_new(row, "px", json_integer(s.prep.input_px));
	(void)json_object_set_new(row, "ms_p50", json_real(f.ms_p50));
	(void)json_object_set_new(row, "images_per_s", json_real(s.batch * 1e3 / f.ms_p50));
	(void)json_object_set_new(row, "gemm_floor_ms", json_real(f.floor_ms));
	(void)json_object_set_new(row, "ratio_to_floor", json_real(f.ms_p50 / f.floor_ms));
	(void)json_object_set_new(row, "threads", json_integer(omp_get_max_threads()));
	(void)json_object_set_new(row, "isa", json_string(vit_isa(s.vit)));
	bench_put_machine(row);
	return output_row(ctl, row, true);
}

/* A run of the command. */
struct run {
	struct ctl *ctl;
	struct asked asked;
	const char *file, *random;
};

static int run_precision(void *data, const char *name)
{
	struct run run = *(const struct run *)data;

	if (precision_parse(&run.asked.precision, name) < 0)
		return ctl_fail(run.ctl, EXIT_USAGE, "--precision %s: not f32, bf16 or int8", name);
	return bench_one(run.ctl, &run.asked, run.file, run.random);
}

static int run_random(void *data, const char *name)
{
	struct run run = *(const struct run *)data;

	run.random = name;
	return bench_each(run.asked.precisions, run_precision, &run);
}

int infer_run(struct ctl *ctl, int argc, char **argv)
{
	struct infer_options o = { 0 };
	const struct option_spec specs[] = {
		MODEL_OPTION_SPECS(o.model, "images a batch, 1; all times are a batch's",
			"else the model's own"),
		{ "seconds", "N", "of measuring, about, 8", &o.seconds, NULL },
	};
	unsigned long long seconds;
	uint32_t batch, px;
	struct run run;
	int first, status;

	if (!options_parse(ctl, argc, argv, specs, ARRAY_SIZE(specs), 0, 0, &first, &status))
		return status;
	if (!bench_number(ctl, "seconds", o.seconds, 0, 3600, 8, &seconds) ||
		!model_options_take(ctl, &o.model, 1, 1, &batch, &px))
		return EXIT_USAGE;
	run = (struct run){ .ctl = ctl, .file = o.model.file };
	run.asked = (struct asked){
		.batch = batch,
		.px = px,
		.round_ns = seconds * UINT64_C(1000000000) / (2 * FLOOR_N_LAYOUTS * N_ROUNDS),
		.precisions = o.model.precisions,
	};
	return o.model.file ? bench_each(run.asked.precisions, run_precision, &run)
			    : bench_each(o.model.random, run_random, &run);
}
