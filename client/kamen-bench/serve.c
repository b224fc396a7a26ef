/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "daemon.h"
#include "load.h"
#include "sites.h"

struct serve_options {
	const char *clients, *rate, *sites, *zipf, *seconds, *size, *px, *model, *random, *threads,
		*seed, *learner, *named[OPTION_MAX_REPEATS];
	unsigned n_named;
};

struct plan {
	struct load load;
	uint32_t input_px, threads;
	char (*names)[64];
	bool own_sites; /* made for the run */
};

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

static bool plan_fill(const struct ctl *ctl, const struct serve_options *o, struct plan *plan)
{
	unsigned long long clients, sites, size, px, threads, seed;

	if (!bench_number(ctl, "clients", o->clients, 1, LOAD_MAX_CLIENTS, 4, &clients) ||
		!bench_number(ctl, "sites", o->sites, 1, LOAD_MAX_SITES, 1, &sites) ||
		!bench_number(ctl, "frame", o->size, 16, 4096, 224, &size) ||
		!bench_number(ctl, "size", o->px, 16, 1024, 0, &px) ||
		!bench_number(ctl, "threads", o->threads, 1, 256, 0, &threads) ||
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
	return true;
}

static int report(struct ctl *ctl, const struct plan *plan, struct load_result *result)
{
	json_t *row = json_object();

	(void)json_object_set_new(row, "clients", json_integer(plan->load.n_clients));
	(void)json_object_set_new(row, "sites", json_integer(plan->load.n_sites));
	(void)json_object_set_new(row, "rate", json_real(plan->load.rate));
	(void)json_object_set_new(row, "zipf", json_real(plan->load.zipf));
	(void)json_object_set_new(row, "learner", json_string(plan->load.learner ? "on" : "off"));
	(void)json_object_set_new(row, "seconds", json_real(result->seconds));
	(void)json_object_set_new(row, "precision", json_string("f32"));
	(void)json_object_set_new(row, "completed", json_integer((json_int_t)result->completed));
	(void)json_object_set_new(row, "refused", json_integer((json_int_t)result->refused));
	(void)json_object_set_new(row, "lost", json_integer((json_int_t)result->lost));
	(void)json_object_set_new(
		row, "requests_per_s", output_number((double)result->completed / result->seconds));
	(void)json_object_set_new(
		row, "p50_ms", output_number(samples_percentile(&result->ms, .5)));
	(void)json_object_set_new(
		row, "p99_ms", output_number(samples_percentile(&result->ms, .99)));
	(void)json_object_set_new(
		row, "overhead_ms_p50", output_number(samples_percentile(&result->overhead, .5)));
	bench_put_machine(row);
	return output_row(ctl, row, true);
}

static int load_and_report(struct ctl *ctl, struct plan *plan)
{
	_cleanup_(load_result_done) struct load_result result = { 0 };
	char endpoint[4096];
	int status, r;

	(void)snprintf(endpoint, sizeof(endpoint), "%s/data.sock", ctl->runtime);
	plan->load.endpoint = endpoint;
	plan->load.sites = plan->names;
	status = plan->own_sites
			 ? sites_create(ctl, plan->load.n_sites, plan->input_px, plan->names)
			 : EXIT_DONE;
	if (status != EXIT_DONE)
		return status;
	r = plan->load.learner ? load_feed(&plan->load) : 0;
	if (r == 0 && plan->load.learner)
		status = sites_learn(ctl, plan->names[0]);
	if (r == 0 && status == EXIT_DONE)
		r = load_run(&plan->load, &result);
	if (plan->own_sites)
		sites_delete(ctl, plan->load.n_sites, plan->names);
	if (*result.why)
		(void)ctl_fail(ctl, EXIT_FAILED, "%s", result.why);
	if (result.completed == 0)
		return ctl_fail(ctl, ctl_status_of(r), "%s: %s", endpoint,
			r < 0 ? strerror(-r) : "nothing was answered");
	status = report(ctl, plan, &result);
	return result.lost ? EXIT_FAILED : status;
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
		{ "seed", "N", "of the choice of sites, 1", &o.seed, NULL },
	};
	_cleanup_(daemon_stop) struct daemon daemon = { .pid = -1, .pidfd = -1 };
	_cleanup_(freep) char(*names)[64] = calloc(LOAD_MAX_SITES, sizeof(*names));
	struct plan plan = { .names = names };
	char settings[128];
	int first, status;

	if (!options_parse(ctl, argc, argv, specs, ARRAY_SIZE(specs), 0, 0, &first, &status))
		return status;
	if (!names || !plan_fill(ctl, &o, &plan))
		return EXIT_USAGE;
	if (!ctl->runtime) {
		(void)snprintf(settings, sizeof(settings),
			"[serve]\nthreads = %u\n[learner]\nenabled = %s\n", plan.threads,
			plan.load.learner ? "on" : "off");
		status = daemon_start(
			ctl, &(struct daemon_spec){ o.model, o.random, settings }, &daemon);
		if (status != EXIT_DONE)
			return status;
		ctl->runtime = daemon.runtime;
	}
	return load_and_report(ctl, &plan);
}
