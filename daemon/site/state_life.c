/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "site/state_internal.h"

/* ---- pause, freeze, resume */

static const char *const hold_names[] = {
	[SITE_ACTIVE] = "",
	[SITE_PAUSED] = "paused",
	[SITE_FROZEN] = "frozen",
};

const char *site_hold_name(enum site_hold hold)
{
	return (size_t)hold < ARRAY_SIZE(hold_names) ? hold_names[hold] : "unknown";
}

int site_hold_parse(enum site_hold *ret_hold, const char *name)
{
	for (unsigned i = 0; name && i < ARRAY_SIZE(hold_names); i++) {
		if (strcmp(hold_names[i], name) == 0) {
			*ret_hold = (enum site_hold)i;
			return 0;
		}
	}
	return -EBADMSG;
}

int site_hold(struct state *state, int64_t id, enum site_hold *ret_hold)
{
	sqlite3_stmt *statement;
	int r;

	r = statement_get(state, &statement, SQL_SITE_HOLD, "i", id);
	if (r < 0)
		return r;
	r = statement_step(state, statement);
	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	r = site_hold_parse(ret_hold, (const char *)sqlite3_column_text(statement, 0));
	(void)sqlite3_reset(statement);
	return r;
}

int site_id_changeable(struct state *state, const char *site, int64_t *ret_id)
{
	enum site_hold hold;
	int r = site_id(state, site, ret_id);

	if (r >= 0)
		r = site_hold(state, *ret_id, &hold);
	if (r < 0)
		return r;
	return hold == SITE_FROZEN ? -EROFS : 0;
}

static int set_hold(struct state *state, const char *site, enum site_hold hold, const char *who)
{
	static const char *const whats[] = {
		[SITE_ACTIVE] = "site.resume",
		[SITE_PAUSED] = "site.pause",
		[SITE_FROZEN] = "site.freeze",
	};
	enum site_hold was;
	char detail[128];
	int64_t id;
	int r;

	r = site_id(state, site, &id);
	if (r >= 0)
		r = site_hold(state, id, &was);
	if (r < 0 || was == hold)
		return r;
	if (was == SITE_FROZEN && hold == SITE_PAUSED)
		return -EBUSY;
	r = statement_run(state, SQL_SITE_SET_HOLD, "ti", site_hold_name(hold), id);
	if (r < 0)
		return r;
	(void)snprintf(detail, sizeof(detail), "by %.100s", who);
	return audit_add(state, site, whats[hold], detail);
}

int state_site_hold(struct state *state, const char *site, enum site_hold hold, const char *who)
{
	int r = state_begin(state);

	if (r < 0)
		return r;
	return state_end(state, set_hold(state, site, hold, who));
}

static int reset(struct state *state, const char *site, const char *who)
{
	int64_t id;
	int r = site_id_changeable(state, site, &id);

	if (r < 0)
		return r;
	return champion_set(state, site, id, 0, "site.reset", who);
}

int state_site_reset(struct state *state, const char *site, const char *who)
{
	int r = state_begin(state);

	if (r < 0)
		return r;
	return state_end(state, reset(state, site, who));
}

/* ---- who should learn */

static int read_need(sqlite3_stmt *statement, struct site_need *ret_need)
{
	struct site_need need = {
		.n_images = (uint64_t)sqlite3_column_int64(statement, 2),
		.n_new = (uint64_t)sqlite3_column_int64(statement, 3),
		.round_us = (uint64_t)sqlite3_column_int64(statement, 4),
	};
	int r;

	r = statement_text(statement, 0, need.site, sizeof(need.site));
	if (r >= 0)
		r = site_hold_parse(&need.hold, (const char *)sqlite3_column_text(statement, 1));
	if (r >= 0)
		*ret_need = need;
	return r;
}

int state_need_list(struct state *state, struct site_need **ret_rows, uint32_t *ret_n)
{
	_cleanup_(freep) struct site_need *rows = NULL;
	uint32_t n = 0, size = 0;
	sqlite3_stmt *statement;
	int r;

	r = statement_get(state, &statement, SQL_SITE_NEEDS, "");
	while (r >= 0 && (r = statement_step(state, statement)) > 0) {
		if (n == size) {
			struct site_need *grown;

			size = size ? 2 * size : 64;
			grown = realloc(rows, size * sizeof(*rows));
			rows = grown ? grown : rows;
			r = grown ? 0 : -ENOMEM;
		}
		if (r >= 0)
			r = read_need(statement, &rows[n++]);
		if (r < 0)
			(void)sqlite3_reset(statement);
	}
	if (r < 0)
		return r;
	*ret_rows = TAKE_PTR(rows);
	*ret_n = n;
	return 0;
}
