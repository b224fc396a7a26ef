/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon.h"
#include "load.h"
#include "onednn/onednn.h"
#include "site_masks.h"
#include "sites.h"

#define N_LEARNT_FROM 128u
#define N_TURNS 3 /* of one site and of all, where they are compared */

struct serve_options {
	const char *clients, *rate, *sites, *zipf, *seconds, *size, *px, *model, *random, *threads,
		*seed, *learner, *precision, *batch, *slots, *density, *beside_one,
		*named[OPTION_MAX_REPEATS];
	unsigned n_named;
};

struct plan {
	struct load load;
	uint32_t input_px, threads, max_batch, n_slots;
	const char *precision;
	char (*names)[64];
	struct site_masks masks; /* density 0: the sites serve the base */
	bool own_sites;          /* made for the run */
	bool beside_one;
	pid_t server;
	uint64_t rss_bytes; /* before there were sites */
};

struct outcome {
	struct load_result all, one;
};

static void outcome_done(struct outcome *outcome)
{
	load_result_done(&outcome->all);
	load_result_done(&outcome->one);
}

static bool real_parse(
	const struct ctl *ctl, const char *option, const char *text, double fallback, double *ret)
{
	char *end = NULL;

	*ret = fallback;
	if (!text)
		return true;
	*ret = strtod(text, &end);
	if (end != text && !*end && *ret >= 0 && *ret <= 1e6)
		return true;
	(void)ctl_fail(ctl, EXIT_USAGE, "--%s %s: not a number from 0", option, text);
	return false;
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
	unsigned long long clients, sites, size, px, threads, seed, batch, slots;

	if (!bench_number(ctl, "clients", o->clients, 1, LOAD_MAX_CLIENTS, 4, &clients) ||
		!bench_number(ctl, "sites", o->sites, 1, LOAD_MAX_SITES, 1, &sites) ||
		!bench_number(ctl, "frame", o->size, 16, 4096, 224, &size) ||
		!bench_number(ctl, "size", o->px, 16, 1024, 0, &px) ||
		!bench_number(ctl, "threads", o->threads, 1, 256, 0, &threads) ||
		!bench_number(ctl, "batch", o->batch, 1, 64, 8, &batch) ||
		!bench_number(ctl, "slots", o->slots, 1, 1024, 4, &slots) ||
		!real_parse(ctl, "density", o->density, 0, &plan->masks.density) ||
		!bench_number(ctl, "seed", o->seed, 0, UINT64_MAX, 1, &seed) ||
		!real_parse(ctl, "rate", o->rate, 0, &plan->load.rate) ||
		!real_parse(ctl, "zipf", o->zipf, 0, &plan->load.zipf) ||
		!real_parse(ctl, "seconds", o->seconds, 10, &plan->load.seconds) ||
		!learner_parse(ctl, o->learner, &plan->load.learner))
		return false;
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
	plan->masks.names = plan->names;
	plan->masks.n = plan->load.n_sites;
	if (!is_precision(plan->precision)) {
		(void)ctl_fail(ctl, EXIT_USAGE, "--precision %s: not auto, f32, bf16 or int8",
			plan->precision);
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
	uint64_t rss = rss_of(plan->server);

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

static int report(struct ctl *ctl, const struct plan *plan, struct outcome *outcome)
{
	struct load_result *result = &outcome->all;
	json_t *row = json_object();

	(void)json_object_set_new(row, "clients", json_integer(plan->load.n_clients));
	(void)json_object_set_new(row, "sites", json_integer(plan->load.n_sites));
	(void)json_object_set_new(row, "rate", json_real(plan->load.rate));
	(void)json_object_set_new(row, "zipf", json_real(plan->load.zipf));
	(void)json_object_set_new(row, "learner", json_string(plan->load.learner ? "on" : "off"));
	(void)json_object_set_new(row, "seconds", json_real(result->seconds));
	(void)json_object_set_new(row, "precision", json_string(plan->precision));
	(void)json_object_set_new(row, "completed", json_integer((json_int_t)result->completed));
	(void)json_object_set_new(row, "refused", json_integer((json_int_t)result->refused));
	(void)json_object_set_new(row, "lost", json_integer((json_int_t)result->lost));
	(void)json_object_set_new(row, "requests_per_s", output_number(rate_of(result)));
	(void)json_object_set_new(
		row, "p50_ms", output_number(samples_percentile(&result->ms, .5)));
	(void)json_object_set_new(
		row, "p99_ms", output_number(samples_percentile(&result->ms, .99)));
	(void)json_object_set_new(
		row, "overhead_ms_p50", output_number(samples_percentile(&result->overhead, .5)));
	if (plan->load.n_sites > 1)
		put_sites(row, result);
	if (plan->masks.density > 0)
		put_masks(row, plan);
	if (plan->beside_one) {
		(void)json_object_set_new(
			row, "one_site_requests_per_s", output_number(rate_of(&outcome->one)));
		(void)json_object_set_new(row, "ratio_to_one_site",
			output_number(rate_of(result) / rate_of(&outcome->one)));
	}
	bench_put_machine(row);
	return output_row(ctl, row, true);
}

/* By turns, so that the machine's moods hit both. */
static int measure(const struct plan *plan, struct outcome *outcome)
{
	struct load all = plan->load, one = plan->load;
	int r = 0;

	if (!plan->beside_one)
		return load_run(&all, &outcome->all);
	one.n_sites = 1;
	one.seconds = all.seconds = plan->load.seconds / (2 * N_TURNS);
	for (int turn = 0; turn < N_TURNS && r == 0; turn++) {
		r = load_run(&one, &outcome->one);
		if (r == 0)
			r = load_run(&all, &outcome->all);
	}
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

static int load_and_report(struct ctl *ctl, struct plan *plan)
{
	_cleanup_(outcome_done) struct outcome outcome = { 0 };
	struct load_result *result = &outcome.all;
	char endpoint[4096], precision[8];
	int status, r = 0;

	(void)snprintf(endpoint, sizeof(endpoint), "%s/data.sock", ctl->runtime);
	plan->load.endpoint = endpoint;
	plan->load.sites = plan->names;
	status = sites_daemon(ctl, precision, &plan->server);
	if (status != EXIT_DONE)
		return status;
	plan->precision = precision;
	plan->rss_bytes = rss_of(plan->server);
	if (plan->own_sites)
		status = sites_create(ctl, plan->load.n_sites, plan->input_px, plan->names);
	if (status != EXIT_DONE)
		return status;
	status = furnish(ctl, plan);
	if (status == EXIT_DONE)
		r = measure(plan, &outcome);
	if (status == EXIT_DONE && r == 0 && result->completed > 0)
		status = report(ctl, plan, &outcome);
	if (plan->own_sites)
		sites_delete(ctl, plan->load.n_sites, plan->names);
	if (*result->why || *outcome.one.why)
		(void)ctl_fail(
			ctl, EXIT_FAILED, "%s", *result->why ? result->why : outcome.one.why);
	if (status == EXIT_DONE && (r < 0 || result->completed == 0))
		return ctl_fail(ctl, ctl_status_of(r), "%s: %s", endpoint,
			r < 0 ? strerror(-r) : "nothing was answered");
	return result->lost || outcome.one.lost ? EXIT_FAILED : status;
}

/* A daemon of our own, set up as was asked. EXIT_DONE or a status, said. */
static int own_daemon(struct ctl *ctl, const struct serve_options *o, const struct plan *plan,
	struct daemon *ret_daemon)
{
	char settings[256];

	(void)snprintf(settings, sizeof(settings),
		"[serve]\nthreads = %u\nprecision = %s\nmax_batch = %u\nslots = %u\n"
		"[learner]\nenabled = %s\n",
		plan->threads, plan->precision, plan->max_batch, plan->n_slots,
		plan->load.learner || plan->masks.density > 0 ? "on" : "off");
	return daemon_start(
		ctl, &(struct daemon_spec){ o->model, o->random, settings }, ret_daemon);
}

int serve_run(struct ctl *ctl, int argc, char **argv)
{
	struct serve_options o = { 0 };
	const struct option_spec specs[] = {
		{ "clients", "N", "sessions, each with one request in flight, 4", &o.clients,
			NULL },
		{ "rate", "R", "requests a second of all together; else a closed loop", &o.rate,
			NULL },
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
		{ "seed", "N", "of the choice of sites, 1", &o.seed, NULL },
	};
	_cleanup_(daemon_stop) struct daemon daemon = { .pid = -1, .pidfd = -1 };
	_cleanup_(freep) char(*names)[64] = calloc(LOAD_MAX_SITES, sizeof(*names));
	_cleanup_(freep) uint32_t *versions = calloc(LOAD_MAX_SITES, sizeof(*versions));
	struct plan plan = { .names = names, .masks.versions = versions };
	int first, status;

	if (!options_parse(ctl, argc, argv, specs, ARRAY_SIZE(specs), 0, 0, &first, &status))
		return status;
	if (!names || !versions || !plan_fill(ctl, &o, &plan))
		return EXIT_USAGE;
	if (!ctl->runtime) {
		status = own_daemon(ctl, &o, &plan, &daemon);
		if (status != EXIT_DONE)
			return status;
		ctl->runtime = daemon.runtime;
	}
	return load_and_report(ctl, &plan);
}
