/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "ops/metrics.h"
#include "serve/control.h"
#include "serve/serve.h"

/* Every name is documented in kamend(8). */

static void one(struct metrics_text *out, const char *name, const char *type, const char *help,
	double value)
{
	metrics_help(out, name, type, help);
	metrics_value(out, name, NULL, value);
}

static void write_serving(struct metrics_text *out, struct serve *serve)
{
	const struct inference_stats *stats = inference_stats(serve->inference);

	one(out, "kamen_uptime_seconds", "gauge", "Seconds since start",
		(double)(clock_now_ns() - serve->started_ns) / 1e9);
	one(out, "kamen_queue_length", "gauge", "Requests that wait for a batch",
		scheduler_n_waiting(serve->scheduler));
	one(out, "kamen_pending_requests", "gauge", "Requests without an answer yet",
		serve->n_pending);
	one(out, "kamen_batches_total", "counter", "Forward passes", (double)stats->n_batches);
	one(out, "kamen_images_total", "counter", "Images in them", (double)stats->n_images);
	one(out, "kamen_batch_failures_total", "counter", "Forward passes that failed",
		(double)stats->n_failed);
	one(out, "kamen_late_forwards_total", "counter", "Results dropped after their deadline",
		(double)stats->n_late);
	one(out, "kamen_slot_bytes", "gauge", "Memory of all weight slots",
		(double)stats->slot_bytes);
	one(out, "kamen_slot_switches_total", "counter", "Masks applied to a weight slot",
		(double)stats->n_switches);
	one(out, "kamen_plans_total", "counter", "Shapes built for oneDNN", (double)stats->n_plans);
	metrics_help(
		out, "kamen_queue_seconds", "histogram", "From receipt to the start of the batch");
	metrics_histogram(out, "kamen_queue_seconds", NULL, &stats->queue);
	metrics_help(out, "kamen_compute_seconds", "histogram",
		"From the start of the batch to its heads, preprocessing included");
	metrics_histogram(out, "kamen_compute_seconds", NULL, &stats->compute);
}

static void write_sessions(struct metrics_text *out, struct serve *serve)
{
	const struct session_list *s = &serve->sessions;

	one(out, "kamen_clients", "gauge", "Sessions on data.sock", s->n);
	one(out, "kamen_clients_total", "counter", "Sessions accepted", (double)s->n_accepted);
	one(out, "kamen_clients_refused_total", "counter", "Sessions refused",
		(double)s->n_refused);
	one(out, "kamen_clients_dropped_total", "counter", "Sessions ended for breaking the rules",
		(double)s->n_dropped);
	metrics_help(
		out, "kamen_quota_refused_total", "counter", "Sessions and requests over a quota");
	for (unsigned i = 0; i < N_QUOTAS; i++) {
		char labels[64];

		(void)snprintf(labels, sizeof(labels), "quota=\"%s\"", quota_names[i]);
		metrics_value(out, "kamen_quota_refused_total", labels,
			(double)serve->quotas.n_refused[i]);
	}
	one(out, "kamen_clients_resumed_total", "counter",
		"Sessions taken over from the serve before", (double)s->n_resumed);
	one(out, "kamen_requests_resumed_total", "counter", "Requests of these that were run again",
		(double)s->n_run_again);
	one(out, "kamen_restart_gap_seconds", "gauge", "Between the serve before and this one",
		(double)s->gap_ns / 1e9);
	one(out, "kamen_control_clients", "gauge", "Connections on control.sock", serve->control.n);
	one(out, "kamen_control_requests_total", "counter", "Control requests",
		(double)serve->control.n_requests);
	one(out, "kamen_control_errors_total", "counter", "Control requests answered by an error",
		(double)serve->control.n_errors);
}

static void write_admission(struct metrics_text *out, struct serve *serve)
{
	const struct admission *a = &serve->admission;

	one(out, "kamen_accepted_total", "counter", "Images accepted", (double)a->n_accepted);
	one(out, "kamen_duplicates_total", "counter", "Images seen before",
		(double)a->n_duplicates);
	one(out, "kamen_rejected_total", "counter", "Images refused", (double)a->n_rejected);
	one(out, "kamen_gaps_total", "counter", "Frames that senders lost on the way",
		(double)a->n_gaps);
	one(out, "kamen_commits_total", "counter", "Group commits", (double)a->n_commits);
	one(out, "kamen_commit_failures_total", "counter", "Group commits that failed",
		(double)a->n_failed);
	one(out, "kamen_decode_jobs_total", "counter", "Images handed to ingest",
		(double)serve->decoder.n_jobs);
	one(out, "kamen_decode_failures_total", "counter", "Of these, not decoded",
		(double)serve->decoder.n_failed);
}

static void write_zmq(struct metrics_text *out, struct serve *serve)
{
	static const struct {
		const char *name, *help;
	} rows[N_ZMQ_COUNTS] = {
		[ZMQ_REQUESTS] = { "kamen_zmq_requests_total", "Requests over ZeroMQ" },
		[ZMQ_MALFORMED] = { "kamen_zmq_malformed_total", "Of these, not understood" },
		[ZMQ_DENIED] = { "kamen_zmq_denied_total",
			"Connections not let in, and requests for a site of somebody else" },
		[ZMQ_BUSY] = { "kamen_zmq_busy_total", "Requests refused since too many waited" },
		[ZMQ_DROPPED] = { "kamen_zmq_dropped_total", "Answers that nobody has read" },
		[ZMQ_PUBLISHED] = { "kamen_zmq_published_total", "Results and events published" },
	};
	const struct feed *feed = &serve->feed;

	for (unsigned i = 0; i < N_ZMQ_COUNTS; i++)
		one(out, rows[i].name, "counter", rows[i].help,
			(double)(feed->before[i] + feed->now[i]));
	one(out, "kamen_feed_dropped_total", "counter",
		"Results and events dropped since ingest did not keep up", (double)feed->n_dropped);
}

static void write_roles(struct metrics_text *out, struct serve *serve)
{
	char labels[96];

	metrics_help(out, "kamen_role_up", "gauge", "1 while the role is ready");
	for (unsigned i = 0; i < N_ROLES; i++) {
		(void)snprintf(labels, sizeof(labels), "role=\"%s\"", serve->roles[i].name);
		metrics_value(out, "kamen_role_up", labels, serve->roles[i].ready);
	}
	metrics_help(out, "kamen_role_restarts_total", "counter", "Restarts of the role");
	for (unsigned i = 0; i < N_ROLES; i++) {
		(void)snprintf(labels, sizeof(labels), "role=\"%s\"", serve->roles[i].name);
		metrics_value(out, "kamen_role_restarts_total", labels, serve->roles[i].n_restarts);
	}
	if (serve->roles[ROLE_INGEST].backend[0]) {
		(void)snprintf(labels, sizeof(labels), "backend=\"%s\"",
			serve->roles[ROLE_INGEST].backend);
		metrics_help(out, "kamen_ingest_backend", "gauge", "How ingest reads files");
		metrics_value(out, "kamen_ingest_backend", labels, 1);
	}
}

static void write_learning(struct metrics_text *out, struct serve *serve)
{
	const struct rounds *r = &serve->rounds;
	char labels[96];

	one(out, "kamen_rounds_total", "counter", "Rounds that ended with a verdict of the gate",
		(double)r->n_done);
	one(out, "kamen_rounds_failed_total", "counter", "Rounds that failed", (double)r->n_failed);
	one(out, "kamen_learner_held_seconds_total", "counter",
		"Time that the learner was stopped beside batches",
		(double)serve->hold.total_ns * 1e-9);
	one(out, "kamen_promotions_auto_total", "counter", "Candidates promoted by policy auto",
		(double)r->n_promoted);
	if (!r->sent)
		return;
	(void)snprintf(labels, sizeof(labels), "site=\"%s\"", r->head->site);
	metrics_help(out, "kamen_learning_step", "gauge", "Steps done of the round that runs");
	metrics_value(out, "kamen_learning_step", labels, r->step);
	metrics_help(out, "kamen_learning_steps", "gauge", "Steps of the round that runs");
	metrics_value(out, "kamen_learning_steps", labels, r->steps);
	metrics_help(out, "kamen_learning_loss_ratio", "gauge",
		"Loss over that of who guesses, mean of its last steps");
	metrics_value(out, "kamen_learning_loss_ratio", labels, (double)r->loss_ratio);
	metrics_help(
		out, "kamen_learning_density", "gauge", "Share of weights that its mask keeps");
	metrics_value(out, "kamen_learning_density", labels, r->density);
}

static void write_verdicts(struct metrics_text *out, const struct site_table *table)
{
	static const char *const names[] = { "NO_VERDICT", "OK", "NG", "UNKNOWN" };
	char labels[128];

	metrics_help(out, "kamen_verdicts_total", "counter", "Verdicts by site");
	for (uint32_t i = 0; i < table->n; i++)
		for (unsigned v = SHM_OK; v <= SHM_UNKNOWN; v++) {
			(void)snprintf(labels, sizeof(labels), "site=\"%s\",verdict=\"%s\"",
				table->sites[i]->name, names[v]);
			metrics_value(out, "kamen_verdicts_total", labels,
				(double)table->sites[i]->n_verdicts[v]);
		}
}

static void write_live(struct metrics_text *out, const struct site_table *table)
{
	static const struct {
		const char *name, *type, *help;
	} rows[] = {
		{ "kamen_drift", "gauge", "1 while the site's drift alarm is raised" },
		{ "kamen_drift_alarms_total", "counter", "Drift alarms raised" },
		{ "kamen_novelty_mean", "gauge", "Mean novelty of the last answers" },
		{ "kamen_rollbacks_auto_total", "counter", "Champions rolled back by themselves" },
		{ "kamen_shadow_samples_total", "counter", "Requests that the shadow saw" },
		{ "kamen_shadow_agreed_total", "counter", "Of these, with the same verdict" },
		{ "kamen_shadow_dropped_total", "counter", "Requests left out for lack of time" },
	};
	char labels[96];

	for (unsigned k = 0; k < ARRAY_SIZE(rows); k++) {
		metrics_help(out, rows[k].name, rows[k].type, rows[k].help);
		for (uint32_t i = 0; i < table->n; i++) {
			const struct live *l = &table->sites[i]->live;
			const double values[] = { l->row.drift.alarm != DRIFT_NONE,
				(double)l->n_alarms, l->row.drift.mean, (double)l->n_rollbacks,
				(double)l->n_shadow, (double)l->n_shadow_agreed,
				(double)l->n_shadow_dropped };

			(void)snprintf(
				labels, sizeof(labels), "site=\"%s\"", table->sites[i]->name);
			metrics_value(out, rows[k].name, labels, values[k]);
		}
	}
}

static void write_changes(struct metrics_text *out, const struct changes *changes)
{
	metrics_help(out, "kamen_changes_failed_total", "counter",
		"Changes of classes and champions that were refused or failed");
	metrics_value(out, "kamen_changes_failed_total", NULL, (double)changes->n_failed);
	metrics_help(out, "kamen_supports_embedded_total", "counter",
		"Stored images that a version looked at for a site's classes");
	metrics_value(out, "kamen_supports_embedded_total", NULL, (double)changes->n_images);
	metrics_help(out, "kamen_supports_failed_total", "counter",
		"Of these, that could not be read or embedded");
	metrics_value(out, "kamen_supports_failed_total", NULL, (double)changes->n_images_failed);
}

static void write_sites(struct metrics_text *out, struct serve *serve)
{
	static const struct {
		const char *name, *type, *help;
	} rows[] = {
		{ "kamen_requests_total", "counter", "Requests by site" },
		{ "kamen_requests_failed_total", "counter", "Answered by an error" },
		{ "kamen_requests_late_total", "counter", "Answered at their deadline" },
		{ "kamen_champion_version", "gauge", "Version that serves, 0: the base" },
		{ "kamen_classes", "gauge", "Classes that the site tells apart" },
		{ "kamen_classified_total", "counter", "Answers with a class" },
		{ "kamen_unclassified_total", "counter",
			"Answers of a site with classes: of none" },
	};
	const struct site_table *table = &serve->sites;
	char labels[96];

	for (unsigned k = 0; k < ARRAY_SIZE(rows); k++) {
		metrics_help(out, rows[k].name, rows[k].type, rows[k].help);
		for (uint32_t i = 0; i < table->n; i++) {
			const struct site *s = table->sites[i];
			const double values[] = { (double)s->n_requests, (double)s->n_failed,
				(double)s->n_late, s->champion, s->n_classes, (double)s->n_labelled,
				(double)s->n_unlike };

			(void)snprintf(labels, sizeof(labels), "site=\"%s\"", s->name);
			metrics_value(out, rows[k].name, labels, values[k]);
		}
	}
	write_verdicts(out, table);
	write_live(out, table);
	metrics_help(
		out, "kamen_request_seconds", "histogram", "From receipt to the answer, by site");
	for (uint32_t i = 0; i < table->n; i++) {
		(void)snprintf(labels, sizeof(labels), "site=\"%s\"", table->sites[i]->name);
		metrics_histogram(out, "kamen_request_seconds", labels, &table->sites[i]->latency);
	}
}

/* In pieces that end with a line: a packet has a limit, the text has none. */
static void reply_text(struct control_client *client, uint64_t id, char *text, size_t n)
{
	const size_t most = WIRE_MAX_PACKET / 2;
	size_t at = 0;

	while (at < n && !client->closed) {
		Kamen__Reply reply = KAMEN__REPLY__INIT;
		Kamen__Text row = KAMEN__TEXT__INIT;
		size_t take = n - at > most ? most : n - at;
		char after;

		while (at + take < n && take > 1 && text[at + take - 1] != '\n')
			take--;
		after = text[at + take];
		text[at + take] = '\0';
		row.text = text + at;
		reply.row_case = KAMEN__REPLY__ROW_TEXT;
		reply.text = &row;
		control_reply(client, id, at + take == n, &reply, -1);
		text[at + take] = after;
		at += take;
	}
}

void control_metrics(struct control_client *client, const Kamen__Request *request)
{
	struct metrics_text out = { .text = NULL };
	struct serve *serve = client->serve;

	write_serving(&out, serve);
	write_sessions(&out, serve);
	write_admission(&out, serve);
	write_zmq(&out, serve);
	write_roles(&out, serve);
	write_learning(&out, serve);
	write_sites(&out, serve);
	write_changes(&out, &serve->changes);
	if (out.error < 0)
		control_error(client, request->id, out.error, "no memory for the metrics");
	else
		reply_text(client, request->id, out.text, out.n);
	metrics_text_done(&out);
}
