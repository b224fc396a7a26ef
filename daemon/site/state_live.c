/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "site/state_internal.h"

#define TRIAL "trial"
#define FORTUNE "drift.fortune."

#define FIELD(name, member, kind) \
	{ \
		name, offsetof(struct live_row, member), kind \
	}

_Static_assert(sizeof(enum drift_kind) == sizeof(uint32_t), "as it is stored");

static const struct figure_field fields[] = {
	FIELD("version", version, FIGURE_U32),
	FIELD("space", space, FIGURE_U64),
	FIELD("threshold", threshold, FIGURE_DOUBLE),
	FIELD("answers", counts.n, FIGURE_U32),
	FIELD("ng", counts.n_ng, FIGURE_U32),
	FIELD("far", counts.n_far, FIGURE_U32),
	FIELD("failed", counts.n_failed, FIGURE_U32),
	FIELD(TRIAL, watch.version, FIGURE_U32),
	FIELD("trial.answers", watch.n_answers, FIGURE_U32),
	FIELD("trial.held", watch.n_held, FIGURE_U32),
	FIELD("trial.threshold", watch.threshold, FIGURE_DOUBLE),
	FIELD("trial.before.answers", watch.before.n, FIGURE_U32),
	FIELD("trial.before.ng", watch.before.n_ng, FIGURE_U32),
	FIELD("trial.before.far", watch.before.n_far, FIGURE_U32),
	FIELD("trial.before.failed", watch.before.n_failed, FIGURE_U32),
	FIELD("trial.now.answers", watch.now.n, FIGURE_U32),
	FIELD("trial.now.ng", watch.now.n_ng, FIGURE_U32),
	FIELD("trial.now.far", watch.now.n_far, FIGURE_U32),
	FIELD("trial.now.failed", watch.now.n_failed, FIGURE_U32),
	FIELD("drift.answers", drift.n, FIGURE_U64),
	FIELD("drift.held", drift.n_held, FIGURE_U32),
	FIELD("drift.mean", drift.mean, FIGURE_DOUBLE),
	FIELD("drift.alarm", drift.alarm, FIGURE_U32),
	FIELD("drift.alarm.answers", drift.alarm_n, FIGURE_U64),
	FIELD("drift.learnt", drift_learnt, FIGURE_BOOL),
};

static int put(struct state *state, int64_t id, const char *name, double value)
{
	return statement_run(state, SQL_LIVE_PUT, "itd", id, name, value);
}

int live_put_trial(struct state *state, int64_t id, uint32_t version)
{
	return put(state, id, TRIAL, version);
}

static void take(struct live_row *row, const char *name, double value)
{
	unsigned i;

	for (size_t k = 0; k < ARRAY_SIZE(fields); k++)
		if (strcmp(name, fields[k].name) == 0)
			figure_set(row, &fields[k], value);
	if (sscanf(name, FORTUNE "%2u", &i) == 1 && i < DRIFT_BETS)
		row->drift.fortunes[i] = value;
}

int state_live_get(struct state *state, const char *site, struct live_row *ret_row)
{
	struct live_row row = { .drift.mean = .5 };
	sqlite3_stmt *statement;
	bool any = false;
	int64_t id;
	int r;

	r = site_id(state, site, &id);
	if (r < 0)
		return r;
	r = statement_get(state, &statement, SQL_LIVE, "i", id);
	while (r >= 0 && (r = statement_step(state, statement)) > 0) {
		const char *name = (const char *)sqlite3_column_text(statement, 0);

		any = true;
		if (name)
			take(&row, name, sqlite3_column_double(statement, 1));
	}
	if (r < 0)
		return r;
	*ret_row = row;
	return any;
}

static int store(struct state *state, const char *site, const struct live_row *row)
{
	char name[sizeof(FORTUNE) + 10];
	int64_t id;
	int r = site_id(state, site, &id);

	for (size_t i = 0; i < ARRAY_SIZE(fields) && r >= 0; i++)
		r = put(state, id, fields[i].name, figure_get(row, &fields[i]));
	for (unsigned i = 0; i < DRIFT_BETS && r >= 0; i++) {
		(void)snprintf(name, sizeof(name), FORTUNE "%u", i);
		r = put(state, id, name, row->drift.fortunes[i]);
	}
	return r;
}

int state_live_store(struct state *state, const char *site, const struct live_row *row)
{
	int r = state_begin(state);

	return r < 0 ? r : state_end(state, store(state, site, row));
}
