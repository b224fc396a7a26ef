/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "ops/metrics.h"
#include "serve/control.h"
#include "serve/rows.h"
#include "serve/serve.h"

struct top_row {
	struct site_message message;
	Kamen__Progress progress;
	uint64_t latency[2 * HISTOGRAM_BUCKETS];
};

static void fill_progress(struct serve *serve, struct top_row *out, const struct site *site)
{
	const struct rounds *rounds = &serve->rounds;
	Kamen__Progress *p = &out->progress;

	if (!rounds->head || !rounds->sent || strcmp(rounds->head->site, site->name) != 0)
		return;
	kamen__progress__init(p);
	p->site = out->message.site.site;
	p->version = rounds->head->version;
	p->has_step = p->has_steps = true;
	p->step = rounds->step;
	p->steps = rounds->steps;
	/* Before its first step nobody knows how long one takes. */
	p->has_seconds_left = rounds->step > 0;
	p->seconds_left = rounds->seconds_left;
	p->has_loss_ratio = rounds->step > 0;
	p->loss_ratio = rounds->loss_ratio;
	out->message.site.progress = p;
}

static void fill_row(struct serve *serve, struct top_row *out, const struct site *site,
	const struct site_row *row)
{
	Kamen__Site *m = &out->message.site;

	site_message_fill_live(&out->message, site, row, rounds_find(serve, site->name) != NULL);
	m->has_ok = m->has_ng = m->has_unknown = m->has_failed = m->has_late = true;
	m->ok = site->n_verdicts[SHM_OK];
	m->ng = site->n_verdicts[SHM_NG];
	m->unknown = site->n_verdicts[SHM_UNKNOWN];
	m->failed = site->n_failed;
	m->late = site->n_late;
	m->latency = out->latency;
	m->n_latency = histogram_pairs(&site->latency, out->latency);
	fill_progress(serve, out, site);
}

void control_top(struct control_client *client, const Kamen__Request *request)
{
	struct serve *serve = client->serve;
	const struct site_table *table = &serve->sites;
	_cleanup_(freep) struct top_row *out = malloc(sizeof(*out));
	struct site_row row;

	for (uint32_t i = 0; out && i < table->n && !client->closed; i++) {
		Kamen__Reply reply = KAMEN__REPLY__INIT;

		if (state_site_get(serve->state, table->sites[i]->name, &row) < 0)
			continue;
		memset(out, 0, sizeof(*out));
		fill_row(serve, out, table->sites[i], &row);
		reply.row_case = KAMEN__REPLY__ROW_SITE;
		reply.site = &out->message.site;
		control_reply(client, request->id, false, &reply, -1);
	}
	if (!client->closed)
		control_done(client, request->id);
}
