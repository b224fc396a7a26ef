/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "ops/log.h"
#include "serve/control.h"
#include "serve/rows.h"
#include "serve/serve.h"
#include "serve/wish.h"

/* ---- asking for a round */

static int begin_round(struct serve *serve, struct site *site, const struct round_wish *wish,
	uint32_t *ret_version, struct diag *diag)
{
	int r;

	if (!serve->config.learner_on)
		return diag_set(
			diag, EOPNOTSUPP, "the learner is off ([learner] in the configuration)");
	admission_commit(serve);
	r = state_round_begin(serve->state, site->name, wish, ret_version, diag);
	if (r < 0)
		return r;
	return rounds_add(serve, site, *ret_version, wish->steps, wish->seed, false);
}

struct control_watch *control_watch_new(
	struct control_client *client, uint64_t id, const char *site, uint32_t version)
{
	for (unsigned i = 0; i < CONTROL_MAX_WATCHES; i++) {
		struct control_watch *watch = &client->watches[i];

		if (watch->version > 0)
			continue;
		*watch = (struct control_watch){ .id = id, .version = version };
		(void)snprintf(watch->site, sizeof(watch->site), "%s", site);
		return watch;
	}
	control_error(
		client, id, -EBUSY, "this connection waits for %u rounds", CONTROL_MAX_WATCHES);
	return NULL;
}

static void reply_queued(struct control_client *client, uint64_t id, const struct site *site,
	uint32_t version, uint32_t steps)
{
	Kamen__LearnResult result = KAMEN__LEARN_RESULT__INIT;
	Kamen__Reply reply = KAMEN__REPLY__INIT;

	result.site = (char *)site->name;
	result.version = version;
	result.has_steps = true;
	result.steps = steps;
	result.state = (char *)"queued";
	reply.row_case = KAMEN__REPLY__ROW_LEARNT;
	reply.learnt = &result;
	control_reply(client, id, true, &reply, -1);
}

void control_learn(struct control_client *client, const Kamen__Request *request)
{
	const Kamen__Learn *learn = request->learn;
	struct serve *serve = client->serve;
	struct control_watch *watch = NULL;
	struct diag diag = { .text = "" };
	char who[CONTROL_WHO_BYTES];
	struct round_wish wish;
	uint32_t version = 0;
	struct site *site;
	int r;

	site = control_find_site(client, request->id, learn->site);
	if (!site)
		return;
	if (learn->wait) {
		/* Of no version yet, so it waits for nothing; but whoever may not wait learns not. */
		watch = control_watch_new(client, request->id, site->name, 0);
		if (!watch)
			return;
	}
	control_who(client, who);
	r = wish_make(&wish, site, learn, who, &diag);
	if (r >= 0)
		r = begin_round(serve, site, &wish, &version, &diag);
	if (r < 0) {
		control_error(
			client, request->id, r, "%s", diag.text[0] ? diag.text : strerror(-r));
		return;
	}
	if (!rounds_find(serve, site->name)) {
		control_error(client, request->id, -EIO, "site %s: the round could not be started",
			site->name);
		return;
	}
	if (!watch) {
		reply_queued(client, request->id, site, version, wish.steps);
		return;
	}
	watch->version = version;
}

/* ---- telling who waits */

struct news {
	Kamen__Reply *reply;
	const char *site;
	uint32_t version;
	bool last;
};

static void tell_client(struct control_client *client, const struct news *news)
{
	client->n_using++;
	for (unsigned i = 0; i < CONTROL_MAX_WATCHES; i++) {
		struct control_watch *watch = &client->watches[i];

		if (watch->version != news->version || strcmp(watch->site, news->site) != 0)
			continue;
		control_reply(client, watch->id, news->last, news->reply, -1);
		if (news->last)
			*watch = (struct control_watch){ .version = 0 };
	}
	control_unuse(client);
}

static void tell_all(struct serve *serve, const struct news *news)
{
	struct control_client *next;

	for (struct control_client *client = serve->control.head; client; client = next) {
		next = client->next;
		tell_client(client, news);
	}
}

void control_learn_progress(struct serve *serve, const Kamen__Progress *progress)
{
	Kamen__Reply reply = KAMEN__REPLY__INIT;
	const struct news news = { &reply, progress->site, progress->version, false };

	reply.row_case = KAMEN__REPLY__ROW_PROGRESS;
	reply.progress = (Kamen__Progress *)progress;
	tell_all(serve, &news);
}

void control_learn_last(
	struct serve *serve, const char *site, uint32_t version, Kamen__Reply *reply)
{
	const struct news news = { reply, site, version, true };

	tell_all(serve, &news);
}

void control_learn_done(struct serve *serve, const struct version_row *row)
{
	Kamen__LearnResult result = KAMEN__LEARN_RESULT__INIT;
	Kamen__Reply reply = KAMEN__REPLY__INIT;
	const struct news news = { &reply, row->site, row->version, true };
	struct gate_message gate;

	gate_message_fill(&gate, row);
	result.site = (char *)row->site;
	result.version = row->version;
	result.has_steps = result.has_seconds = result.has_loss_ratio = result.has_density = true;
	result.steps = row->steps;
	result.seconds = row->seconds;
	result.loss_ratio = row->loss_ratio;
	result.density = row->density;
	result.gate = &gate.gate;
	result.state = (char *)version_state_name(row->state);
	reply.row_case = KAMEN__REPLY__ROW_LEARNT;
	reply.learnt = &result;
	tell_all(serve, &news);
}

static void tell_error(
	struct serve *serve, const char *site, uint32_t version, int code, const char *text)
{
	Kamen__Reply reply = KAMEN__REPLY__INIT;
	Kamen__Error error = KAMEN__ERROR__INIT;
	const struct news news = { &reply, site, version, true };

	error.code = code;
	error.text = (char *)text;
	reply.error = &error;
	tell_all(serve, &news);
}

void control_learn_failed(
	struct serve *serve, const char *site, uint32_t version, const char *reason)
{
	char text[512];

	(void)snprintf(text, sizeof(text), "site %s: version %u failed: %s", site, version, reason);
	tell_error(serve, site, version, -EIO, text);
}

void control_learn_unserved(struct serve *serve, const struct version_row *row, int code)
{
	char text[512];

	(void)snprintf(text, sizeof(text),
		"site %s: version %u is stored (%s), but the site could not take it up: %s",
		row->site, row->version, version_state_name(row->state), strerror(-code));
	tell_error(serve, row->site, row->version, code, text);
}
