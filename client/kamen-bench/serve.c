/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon.h"
#include "load.h"
#include "metronome.h"
#include "neighbours.h"
#include "onednn/onednn.h"
#include "site_masks.h"
#include "sites.h"
#include "transport.h"
#include "windows.h"

#define N_LEARNT_FROM 128u
#define N_TURNS 3 /* of one site and of all, where they are compared */
#define N_NEIGHBOUR_TURNS 6
/* CPUs of a learner that stands still: it may take a moment to stop. */
#define STILL_CPUS .05
/* Windows of a load: three that agree, or as many as there is time for. */
#define MAX_WINDOWS 5u
#define WINDOW_TOLERANCE .1
#define LATE_MS 2.0 /* after the deadline: what the machine's scheduler may take */

struct serve_options {
	const char *clients, *rate, *sites, *zipf, *seconds, *size, *px, *model, *random, *threads,
		*seed, *learner, *precision, *batch, *slots, *density, *beside_one, *beside_learner,
		*deadline, *transport, *endpoint, *overload, *depth, *named[OPTION_MAX_REPEATS];
	unsigned n_named;
};

struct plan {
	struct load load;
	uint32_t input_px, threads, max_batch, n_slots;
	const char *precision;
	char (*names)[64];
	struct site_masks masks; /* density 0: the sites serve the base */
	bool own_sites;          /* made for the run */
	bool beside_one, beside_learner;
	char router[128]; /* ZeroMQ's way in */
	double overload;  /* times the capacity; 0: the rate that was asked for */
	struct sites_roles roles;
	uint64_t rss_bytes; /* before there were sites */
};

struct outcome {
	struct load_result all, one;
	/* Beside the learner, whose turns all is. */
	struct load_result alone, spinners;
	struct windows ms, overhead, compute;
	double capacity;                 /* requests a second; NaN: not asked for */
	struct samples timer_ms;         /* how late a bare timer was */
	double learner_cpu_s, learner_s; /* in its turns */
};

static void outcome_done(struct outcome *outcome)
{
	load_result_done(&outcome->all);
	load_result_done(&outcome->one);
	load_result_done(&outcome->alone);
	load_result_done(&outcome->spinners);
	windows_done(&outcome->ms);
	windows_done(&outcome->overhead);
	windows_done(&outcome->compute);
	samples_done(&outcome->timer_ms);
}

static bool learner_parse(const struct ctl *ctl, const char *text, bool *ret_on)
{
	*ret_on = text && strcmp(text, "on") == 0;
	if (!text || *ret_on || strcmp(text, "off") == 0)
		return true;
	(void)ctl_fail(ctl, EXIT_USAGE, "--learner %s: on or off", text);
	return false;
}

/* It becomes a line of our daemon's configuration. */
static bool is_precision(const char *name)
{
	enum precision precision;

	return strcmp(name, "auto") == 0 || precision_parse(&precision, name) == 0;
}

static bool plan_fill(const struct ctl *ctl, const struct serve_options *o, struct plan *plan)
{
	unsigned long long clients, sites, size, px, threads, seed, batch, slots, depth;
	double deadline_ms;

	if (!bench_number(ctl, "clients", o->clients, 1, LOAD_MAX_CLIENTS, 4, &clients) ||
		!bench_number(ctl, "sites", o->sites, 1, LOAD_MAX_SITES, 1, &sites) ||
		!bench_number(ctl, "frame", o->size, 16, 4096, 224, &size) ||
		!bench_number(ctl, "size", o->px, 16, 1024, 0, &px) ||
		!bench_number(ctl, "threads", o->threads, 1, 256, 0, &threads) ||
		!bench_number(ctl, "batch", o->batch, 1, 64, 8, &batch) ||
		!bench_number(ctl, "slots", o->slots, 1, 1024, 4, &slots) ||
		!bench_number(ctl, "depth", o->depth, 1, LOAD_MAX_DEPTH / 2, 1, &depth) ||
		!bench_real(ctl, "deadline-ms", o->deadline, 0, &deadline_ms) ||
		!bench_real(ctl, "overload", o->overload, 0, &plan->overload) ||
		!bench_real(ctl, "density", o->density, 0, &plan->masks.density) ||
		!bench_number(ctl, "seed", o->seed, 0, UINT64_MAX, 1, &seed) ||
		!bench_real(ctl, "rate", o->rate, 0, &plan->load.rate) ||
		!bench_real(ctl, "zipf", o->zipf, 0, &plan->load.zipf) ||
		!bench_real(ctl, "seconds", o->seconds, 10, &plan->load.seconds) ||
		!learner_parse(ctl, o->learner, &plan->load.learner))
		return false;
	plan->load.deadline_ns = (uint64_t)(deadline_ms * 1e6);
	/* At a rate nothing but the slots limits what is in flight. */
	plan->load.depth = plan->load.rate > 0 ? LOAD_MAX_DEPTH : (uint32_t)depth;
	plan->load.n_clients = (uint32_t)clients;
	plan->load.n_sites = o->n_named ? o->n_named : (uint32_t)sites;
	plan->own_sites = o->n_named == 0;
	for (unsigned i = 0; i < o->n_named; i++)
		(void)snprintf(plan->names[i], sizeof(plan->names[i]), "%s", o->named[i]);
	plan->load.px = (uint32_t)size;
	plan->load.seed = seed;
	plan->input_px = (uint32_t)px;
	plan->threads = (uint32_t)threads;
	plan->max_batch = (uint32_t)batch;
	plan->n_slots = (uint32_t)slots;
	plan->precision = o->precision ? o->precision : "auto";
	plan->beside_one = o->beside_one != NULL;
	plan->beside_learner = o->beside_learner != NULL;
	plan->load.learner |= plan->beside_learner;
	plan->masks.names = plan->names;
	plan->masks.n = plan->load.n_sites;
	return true;
}

/* Names, and what does not go together. */
static bool plan_check(const struct ctl *ctl, const struct serve_options *o, struct plan *plan)
{
	if (!is_precision(plan->precision)) {
		(void)ctl_fail(ctl, EXIT_USAGE, "--precision %s: not auto, f32, bf16 or int8",
			plan->precision);
		return false;
	}
	plan->load.transport = transport_find(o->transport ? o->transport : "shm");
	if (!plan->load.transport) {
		(void)ctl_fail(ctl, EXIT_USAGE, "--transport %s: shm or zmq", o->transport);
		return false;
	}
	if (plan->overload > 0 && (plan->load.deadline_ns == 0 || plan->load.rate > 0)) {
		(void)ctl_fail(ctl, EXIT_USAGE, "--overload: with --deadline-ms, without --rate");
		return false;
	}
	if (plan->beside_learner &&
		(o->learner || plan->beside_one || plan->overload > 0 || ctl->runtime)) {
		(void)ctl_fail(ctl, EXIT_USAGE,
			"--beside-learner: of a daemon of our own, without --learner, "
			"--beside-one, --overload");
		return false;
	}
	if (plan->masks.density > 1 || (plan->masks.density > 0 && !plan->own_sites)) {
		(void)ctl_fail(ctl, EXIT_USAGE, "--density: above 0, at most 1, of new sites");
		return false;
	}
	return true;
}

static uint64_t rss_of(pid_t pid)
{
	unsigned long long size = 0, resident = 0;
	char path[32];
	FILE *f;

	(void)snprintf(path, sizeof(path), "/proc/%d/statm", (int)pid);
	f = fopen(path, "re");
	if (f && fscanf(f, "%llu %llu", &size, &resident) != 2)
		resident = 0;
	if (f)
		(void)fclose(f);
	return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* How the sites fare among each other. */
static void put_sites(json_t *row, struct load_result *result)
{
	struct samples p99 = { 0 };

	for (uint32_t i = 0; i < result->n_sites; i++)
		if (result->of_site[i].n > 0)
			(void)samples_add(&p99, samples_percentile(&result->of_site[i], .99));
	(void)json_object_set_new(
		row, "site_p99_ms_median", output_number(samples_percentile(&p99, .5)));
	(void)json_object_set_new(
		row, "site_p99_ms_worst", output_number(samples_percentile(&p99, 1)));
	samples_done(&p99);
}

static void put_masks(json_t *row, const struct plan *plan)
{
	uint64_t rss = rss_of(plan->roles.serve);

	(void)json_object_set_new(row, "density", json_real(plan->masks.density));
	(void)json_object_set_new(
		row, "coded_bytes", json_integer((json_int_t)plan->masks.coded_bytes));
	(void)json_object_set_new(row, "rss_bytes", json_integer((json_int_t)rss));
	(void)json_object_set_new(row, "rss_raise_bytes",
		json_integer((json_int_t)rss - (json_int_t)plan->rss_bytes));
}

static double rate_of(const struct load_result *result)
{
	return (double)result->completed / result->seconds;
}

static void put(json_t *row, const char *name, double number)
{
	(void)json_object_set_new(row, name, output_number(number));
}

static void put_count(json_t *row, const char *name, uint64_t n)
{
	(void)json_object_set_new(row, name, json_integer((json_int_t)n));
}

static void put_load(json_t *row, const struct plan *plan, const struct load_result *result)
{
	(void)json_object_set_new(row, "transport", json_string(plan->load.transport->name));
	put_count(row, "clients", plan->load.n_clients);
	put_count(row, "sites", plan->load.n_sites);
	put(row, "rate", plan->load.rate);
	put(row, "zipf", plan->load.zipf);
	(void)json_object_set_new(row, "learner", json_string(plan->load.learner ? "on" : "off"));
	put(row, "seconds", result->seconds);
	(void)json_object_set_new(row, "precision", json_string(plan->precision));
	put_count(row, "completed", result->completed);
	put_count(row, "refused", result->refused);
	put_count(row, "lost", result->lost);
	put_count(row, "doubled", result->doubled);
	put_count(row, "wrong", result->wrong);
	put(row, "requests_per_s", rate_of(result));
}

static void put_times(json_t *row, struct outcome *outcome)
{
	struct load_result *result = &outcome->all;
	double overhead = samples_percentile(&result->overhead, .5);
	double compute = samples_percentile(&result->compute, .5);

	put(row, "p50_ms", samples_percentile(&result->ms, .5));
	put(row, "p90_ms", samples_percentile(&result->ms, .9));
	put(row, "p99_ms", samples_percentile(&result->ms, .99));
	put(row, "p999_ms", samples_percentile(&result->ms, .999));
	put(row, "compute_ms_p50", compute);
	put(row, "overhead_ms_p50", overhead);
	put(row, "overhead_ms_p99", samples_percentile(&result->overhead, .99));
	put(row, "overhead_by_compute", overhead / compute);
	if (outcome->ms.n == 0)
		return;
	put_count(row, "windows", outcome->ms.n);
	(void)json_object_set_new(row, "stable", json_boolean(windows_agree(&outcome->ms)));
	put(row, "tolerance", outcome->ms.tolerance);
}

static double share_by(const struct samples *samples, double limit)
{
	size_t n = 0;

	for (size_t i = 0; i < samples->n; i++)
		n += samples->values[i] <= limit;
	return (double)n / (double)samples->n;
}

static void put_deadlines(json_t *row, const struct plan *plan, struct outcome *outcome)
{
	struct samples *late = &outcome->all.late_ms;

	put(row, "deadline_ms", (double)plan->load.deadline_ns * 1e-6);
	put(row, "overload", plan->overload);
	put(row, "capacity_per_s", outcome->capacity);
	put_count(row, "answered", late->n);
	put(row, "answered_by_deadline_2ms", share_by(late, LATE_MS));
	put(row, "late_ms_p50", samples_percentile(late, .5));
	put(row, "late_ms_p99", samples_percentile(late, .99));
	put(row, "late_ms_p999", samples_percentile(late, .999));
	put(row, "late_ms_worst", samples_percentile(late, 1));
	put(row, "timer_by_2ms", share_by(&outcome->timer_ms, LATE_MS));
	put(row, "timer_late_ms_p99", samples_percentile(&outcome->timer_ms, .99));
	put(row, "timer_late_ms_worst", samples_percentile(&outcome->timer_ms, 1));
}

/* What is told of times are the windows that agreed, or the last three. */
static int windows_keep(struct outcome *outcome)
{
	struct load_result *result = &outcome->all;
	int r;

	if (outcome->ms.n == 0)
		return 0;
	samples_done(&result->ms);
	samples_done(&result->overhead);
	samples_done(&result->compute);
	r = windows_merge(&outcome->ms, &result->ms);
	if (r == 0)
		r = windows_merge(&outcome->overhead, &result->overhead);
	return r < 0 ? r : windows_merge(&outcome->compute, &result->compute);
}

static void put_neighbours(json_t *row, struct outcome *outcome)
{
	struct samples *alone = &outcome->alone.ms;
	struct samples *spinners = &outcome->spinners.ms;
	const double p99 = samples_percentile(alone, .99);

	put(row, "alone_p50_ms", samples_percentile(alone, .5));
	put(row, "alone_p99_ms", p99);
	put(row, "spinners_p50_ms", samples_percentile(spinners, .5));
	put(row, "spinners_p99_ms", samples_percentile(spinners, .99));
	put(row, "p99_to_alone", samples_percentile(&outcome->all.ms, .99) / p99);
	put(row, "spinners_p99_to_alone", samples_percentile(spinners, .99) / p99);
	put(row, "learner_cpus", outcome->learner_cpu_s / outcome->learner_s);
}

static int report(struct ctl *ctl, const struct plan *plan, struct outcome *outcome)
{
	struct load_result *result = &outcome->all;
	json_t *row;

	if (windows_keep(outcome) < 0)
		return ctl_fail(ctl, EXIT_FAILED, "%s", strerror(ENOMEM));
	row = json_object();
	put_load(row, plan, result);
	put_times(row, outcome);
	if (plan->load.deadline_ns > 0)
		put_deadlines(row, plan, outcome);
	if (plan->load.n_sites > 1)
		put_sites(row, result);
	if (plan->masks.density > 0)
		put_masks(row, plan);
	if (plan->beside_one) {
		put(row, "one_site_requests_per_s", rate_of(&outcome->one));
		put(row, "ratio_to_one_site", rate_of(result) / rate_of(&outcome->one));
	}
	if (plan->beside_learner)
		put_neighbours(row, outcome);
	bench_put_machine(row);
	return output_row(ctl, row, true);
}

/* By turns, so that the machine's moods hit both. */
static int measure_beside_one(const struct plan *plan, struct outcome *outcome)
{
	struct load all = plan->load, one = plan->load;
	int r = 0;

	one.n_sites = 1;
	one.seconds = all.seconds = plan->load.seconds / (2 * N_TURNS);
	for (int turn = 0; turn < N_TURNS && r == 0; turn++) {
		r = load_run(&one, &outcome->one);
		if (r == 0)
			r = load_run(&all, &outcome->all);
	}
	return r;
}

static int neighbour_turn(const struct load *load, struct neighbours *neighbours,
	enum neighbour neighbour, struct outcome *outcome)
{
	struct load_result *results[N_NEIGHBOURS] = {
		[NEIGHBOUR_NOBODY] = &outcome->alone,
		[NEIGHBOUR_LEARNER] = &outcome->all,
		[NEIGHBOUR_SPINNERS] = &outcome->spinners,
	};
	int r = neighbours_let(neighbours, neighbour);
	const double cpu_s = neighbours_learner_cpu_s(neighbours);
	const uint64_t begin = bench_now_ns();
	double learner_cpu_s, seconds;

	if (r == 0)
		r = load_run(load, results[neighbour]);
	learner_cpu_s = neighbours_learner_cpu_s(neighbours) - cpu_s;
	seconds = (double)(bench_now_ns() - begin) * 1e-9;
	if (neighbour == NEIGHBOUR_LEARNER) {
		outcome->learner_cpu_s += learner_cpu_s;
		outcome->learner_s += seconds;
	} else if (r == 0 && learner_cpu_s > STILL_CPUS * seconds) {
		/* The ratio would be of the learner to the learner. */
		r = -EBUSY;
	}
	return r;
}

static int measure_neighbours(const struct plan *plan, struct outcome *outcome)
{
	_cleanup_(neighbours_freep) struct neighbours *neighbours = NULL;
	struct load load = plan->load;
	int r = neighbours_new(&neighbours, plan->roles.learner);

	load.seconds = plan->load.seconds / (N_NEIGHBOURS * N_NEIGHBOUR_TURNS);
	for (unsigned turn = 0; turn < N_NEIGHBOURS * N_NEIGHBOUR_TURNS && r == 0; turn++)
		r = neighbour_turn(&load, neighbours, turn % N_NEIGHBOURS, outcome);
	return r;
}

/* As much as whole batches and always another one waiting can make of it. */
static int measure_capacity(const struct plan *plan, struct outcome *outcome)
{
	_cleanup_(load_result_done) struct load_result result = { 0 };
	struct load load = plan->load;
	uint32_t depth = (2 * plan->max_batch + load.n_clients - 1) / load.n_clients;
	int r;

	load.rate = 0;
	load.deadline_ns = 0;
	load.depth = depth < LOAD_MAX_DEPTH / 2 ? depth : LOAD_MAX_DEPTH / 2;
	load.seconds = plan->load.seconds / MAX_WINDOWS;
	r = load_run(&load, &result);
	outcome->capacity = rate_of(&result);
	return r;
}

static int window_keep(struct outcome *outcome, struct load_result *window)
{
	int r = samples_merge(windows_begin(&outcome->ms), &window->ms);

	if (r == 0)
		r = samples_merge(windows_begin(&outcome->overhead), &window->overhead);
	if (r == 0)
		r = samples_merge(windows_begin(&outcome->compute), &window->compute);
	windows_end(&outcome->ms);
	windows_end(&outcome->overhead);
	windows_end(&outcome->compute);
	return r < 0 ? r : load_result_take(&outcome->all, window);
}

static int measure_windows(const struct plan *plan, struct outcome *outcome)
{
	struct load load = plan->load;
	int r = load_result_new(&outcome->all, load.n_sites);

	load.seconds /= MAX_WINDOWS;
	outcome->ms.tolerance = WINDOW_TOLERANCE;
	while (r == 0 && outcome->ms.n < MAX_WINDOWS && !windows_agree(&outcome->ms)) {
		_cleanup_(load_result_done) struct load_result window = { 0 };
		double seconds;

		r = load_run(&load, &window);
		seconds = window.seconds;
		if (window_keep(outcome, &window) < 0 && r == 0)
			r = -ENOMEM;
		outcome->all.seconds += seconds;
	}
	return r;
}

static int measure(struct plan *plan, struct outcome *outcome)
{
	struct metronome *metronome = NULL;
	int r = 0;

	outcome->capacity = NAN;
	if (plan->beside_one)
		return measure_beside_one(plan, outcome);
	if (plan->beside_learner)
		return measure_neighbours(plan, outcome);
	if (plan->overload > 0) {
		r = measure_capacity(plan, outcome);
		plan->load.rate = plan->overload * outcome->capacity;
		plan->load.depth = LOAD_MAX_DEPTH;
	}
	if (r == 0 && plan->load.deadline_ns > 0)
		/* As often as a deadline comes. */
		r = metronome_start(&metronome,
			(uint64_t)(1e9 / (plan->load.rate > 0 ? plan->load.rate : 1000)));
	if (r == 0)
		r = measure_windows(plan, outcome);
	if (metronome_stop(metronome, &outcome->timer_ms) < 0 && r == 0)
		r = -ENOMEM;
	return r;
}

/* What the load needs beside the sites. EXIT_DONE or a status, said. */
static int furnish(struct ctl *ctl, struct plan *plan)
{
	int status = EXIT_DONE, r = 0;

	if (plan->masks.density > 0) {
		for (uint32_t i = 0; i < plan->load.n_sites && r == 0; i++)
			r = load_feed(&plan->load, i, 1);
		if (r == 0)
			status = site_masks_give(ctl, &plan->masks);
		plan->load.versions = plan->masks.versions;
	}
	if (r == 0 && status == EXIT_DONE && plan->load.learner) {
		r = load_feed(&plan->load, 0, N_LEARNT_FROM);
		if (r == 0)
			status = sites_learn(ctl, plan->names[0]);
	}
	return r < 0 ? ctl_fail(ctl, ctl_status_of(r), "images to learn from: %s", strerror(-r))
		     : status;
}

static uint64_t n_answers(const struct load_result *result)
{
	return result->completed + result->late_ms.n;
}

/* Whether any turn lost, doubled or garbled something, and why the first request was refused or lost;
 * "": none was. */
static bool failed(const struct outcome *outcome, const char **ret_why)
{
	const struct load_result *of[] = { &outcome->all, &outcome->one, &outcome->alone,
		&outcome->spinners };
	bool any = false;

	*ret_why = "";
	for (size_t i = 0; i < ARRAY_SIZE(of); i++) {
		any |= of[i]->lost || of[i]->doubled || of[i]->wrong;
		if (!**ret_why)
			*ret_why = of[i]->why;
	}
	return any;
}

static const char *reason_of(int r)
{
	if (r == -EBUSY)
		return "the learner went on in turns that were to be without it";
	return r < 0 ? strerror(-r) : "nothing was answered";
}

static int load_and_report(struct ctl *ctl, struct plan *plan)
{
	_cleanup_(outcome_done) struct outcome outcome = { 0 };
	struct load_result *result = &outcome.all;
	char endpoint[4096], precision[8];
	const char *why;
	int status, r = 0;
	bool bad;

	(void)snprintf(endpoint, sizeof(endpoint), "%s/data.sock", ctl->runtime);
	plan->load.data_socket = endpoint;
	plan->load.endpoint = plan->load.transport == &transport_zmq ? plan->router : endpoint;
	plan->load.sites = plan->names;
	status = sites_daemon(ctl, precision, &plan->roles);
	if (status != EXIT_DONE)
		return status;
	plan->precision = precision;
	plan->rss_bytes = rss_of(plan->roles.serve);
	if (plan->own_sites)
		status = sites_create(ctl, plan->load.n_sites, plan->input_px, plan->names);
	if (status != EXIT_DONE)
		return status;
	status = furnish(ctl, plan);
	if (status == EXIT_DONE)
		r = measure(plan, &outcome);
	if (status == EXIT_DONE && r == 0 && n_answers(result) > 0)
		status = report(ctl, plan, &outcome);
	if (plan->own_sites)
		sites_delete(ctl, plan->load.n_sites, plan->names);
	bad = failed(&outcome, &why);
	/* With deadlines refusals are what is measured. */
	if (plan->load.deadline_ns == 0 && *why)
		(void)ctl_fail(ctl, EXIT_FAILED, "%s", why);
	if (status == EXIT_DONE && (r < 0 || n_answers(result) == 0))
		return ctl_fail(ctl, ctl_status_of(r), "%s: %s", endpoint, reason_of(r));
	return bad ? EXIT_FAILED : status;
}

/* A daemon of our own, set up as was asked. EXIT_DONE or a status, said. */
static int own_daemon(struct ctl *ctl, const struct serve_options *o, const struct plan *plan,
	struct daemon *ret_daemon)
{
	char settings[512];

	(void)snprintf(settings, sizeof(settings),
		"[serve]\nthreads = %u\nprecision = %s\nmax_batch = %u\nslots = %u\n"
		"[learner]\nenabled = %s\n[zmq]\nslots = 64\nrouter = %s\n",
		plan->threads, plan->precision, plan->max_batch, plan->n_slots,
		plan->load.learner || plan->masks.density > 0 ? "on" : "off",
		plan->load.transport == &transport_zmq ? plan->router : "");
	return daemon_start(
		ctl, &(struct daemon_spec){ o->model, o->random, settings }, ret_daemon);
}

int serve_run(struct ctl *ctl, int argc, char **argv)
{
	struct serve_options o = { 0 };
	const struct option_spec specs[] = {
		{ "clients", "N", "sessions, each on a thread of its own, 4", &o.clients, NULL },
		{ "rate", "R", "requests a second of all together; else a closed loop", &o.rate,
			NULL },
		{ "depth", "N", "requests of a client in flight, 1; at a rate: as they come",
			&o.depth, NULL },
		{ "transport", "NAME", "shm or zmq, shm", &o.transport, NULL },
		{ "endpoint", "URL", "of the daemon's ROUTER, where it is not our own", &o.endpoint,
			NULL },
		{ "deadline-ms", "MS", "of every request, after it was due; else none", &o.deadline,
			NULL },
		{ "overload", "X", "a rate of X times the capacity, which is measured first",
			&o.overload, NULL },
		{ "sites", "N", "1; made for the run and deleted", &o.sites, NULL },
		{ "site", "NAME", "a site that is there, instead of new ones; may be repeated",
			o.named, &o.n_named },
		{ "zipf", "S", "exponent of the sites' popularity, 0: all alike", &o.zipf, NULL },
		{ "seconds", "N", "10", &o.seconds, NULL },
		{ "frame", "PX", "side of the RGB frames that are sent, 224", &o.size, NULL },
		{ "size", "PX", "the sites' input_px; else the model's own", &o.px, NULL },
		{ "model", "FILE", "of a daemon of our own (where no --runtime is given)", &o.model,
			NULL },
		{ "random", "NAME", "an untrained model of that daemon: vit_t, vit_s, ...",
			&o.random, NULL },
		{ "learner", "on|off", "a round runs meanwhile; off: none can", &o.learner, NULL },
		{ "threads", "N", "of that daemon; else one a processor", &o.threads, NULL },
		{ "precision", "NAME", "of that daemon: f32, bf16, int8; else auto", &o.precision,
			NULL },
		{ "batch", "N", "images that it computes at once, 8", &o.batch, NULL },
		{ "slots", "N", "copies of its weights, 4", &o.slots, NULL },
		{ "density", "D", "every site has a random mask of its own; else the base",
			&o.density, NULL },
		{ "beside-one", NULL, "turns with all requests to one site, for a ratio",
			&o.beside_one, NULL },
		{ "beside-learner", NULL,
			"turns without it, with it, and with idle-priority threads that spin",
			&o.beside_learner, NULL },
		{ "seed", "N", "of the choice of sites, 1", &o.seed, NULL },
	};
	_cleanup_(daemon_stop) struct daemon daemon = { .pid = -1, .pidfd = -1 };
	_cleanup_(freep) char(*names)[64] = calloc(LOAD_MAX_SITES, sizeof(*names));
	_cleanup_(freep) uint32_t *versions = calloc(LOAD_MAX_SITES, sizeof(*versions));
	struct plan plan = { .names = names, .masks.versions = versions };
	int first, status;

	if (!options_parse(ctl, argc, argv, specs, ARRAY_SIZE(specs), 0, 0, &first, &status))
		return status;
	if (!names || !versions || !plan_fill(ctl, &o, &plan) || !plan_check(ctl, &o, &plan))
		return EXIT_USAGE;
	if (ctl->runtime && plan.load.transport == &transport_zmq && !o.endpoint)
		return ctl_fail(ctl, EXIT_USAGE, "--transport zmq: --endpoint of that daemon");
	(void)snprintf(plan.router, sizeof(plan.router), "%s", o.endpoint ? o.endpoint : "");
	if (!ctl->runtime) {
		(void)snprintf(plan.router, sizeof(plan.router), "ipc:///tmp/kamen-bench-router-%d",
			(int)getpid());
		status = own_daemon(ctl, &o, &plan, &daemon);
		if (status != EXIT_DONE)
			return status;
		ctl->runtime = daemon.runtime;
	}
	status = load_and_report(ctl, &plan);
	/* libzmq leaves it. */
	if (daemon.pid > 0 && plan.router[0])
		(void)unlink(plan.router + strlen("ipc://"));
	return status;
}
