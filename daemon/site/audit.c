/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "site/state_internal.h"

static int read_head(struct state *state, struct chain *ret_head)
{
	struct chain head = { 0 };
	sqlite3_stmt *statement;
	int r;

	r = statement_get(state, &statement, SQL_AUDIT_HEAD, "");
	if (r < 0)
		return r;
	r = statement_step(state, statement);
	if (r > 0) {
		head.n = (uint64_t)sqlite3_column_int64(statement, 0);
		r = statement_digest(statement, 1, &head.head);
		(void)sqlite3_reset(statement);
	}
	if (r < 0)
		return r;
	*ret_head = head;
	return 0;
}

int audit_add(struct state *state, const char *site, const char *what, const char *detail)
{
	struct chain_row row = {
		.time_us = clock_wall_us(), .site = site, .what = what, .detail = detail
	};
	struct chain head;
	int r;

	r = read_head(state, &head);
	if (r < 0)
		return r;
	row.seq = head.n + 1;
	row.prev = head.head;
	row.hash = chain_hash(&row);
	return statement_run(state, SQL_AUDIT_ADD, "iittthh", (int64_t)row.seq,
		(int64_t)row.time_us, row.site, row.what, row.detail, &row.prev, &row.hash);
}

int state_audit(struct state *state, const char *site, const char *what, const char *detail)
{
	int r = state_begin(state);

	if (r < 0)
		return r;
	return state_end(state, audit_add(state, site, what, detail));
}

int state_audit_head(struct state *state, uint64_t *ret_n, struct digest *ret_head)
{
	struct chain head;
	int r = read_head(state, &head);

	if (r < 0)
		return r;
	*ret_n = head.n;
	*ret_head = head.head;
	return 0;
}

/* ---- reading */

static const char *text_of(sqlite3_stmt *statement, int column)
{
	const char *text = (const char *)sqlite3_column_text(statement, column);

	return text ? text : "";
}

/* Its texts live until the statement's next step. */
static int read_row(struct chain_row *row, sqlite3_stmt *statement, struct diag *diag)
{
	*row = (struct chain_row){
		.seq = (uint64_t)sqlite3_column_int64(statement, 0),
		.time_us = (uint64_t)sqlite3_column_int64(statement, 1),
		.site = text_of(statement, 2),
		.what = text_of(statement, 3),
		.detail = text_of(statement, 4),
	};
	if (statement_digest(statement, 5, &row->prev) < 0 ||
		statement_digest(statement, 6, &row->hash) < 0)
		return diag_set(
			diag, EBADMSG, "audit row %llu: not a hash", (unsigned long long)row->seq);
	return 0;
}

int state_audit_verify(
	struct state *state, uint64_t *ret_n, struct digest *ret_head, struct diag *diag)
{
	struct chain chain = { 0 };
	sqlite3_stmt *statement;
	struct chain_row row;
	int r;

	r = statement_get(state, &statement, SQL_AUDIT_ALL, "");
	while (r >= 0 && (r = statement_step(state, statement)) > 0) {
		r = read_row(&row, statement, diag);
		if (r == 0)
			r = chain_step(&chain, &row, diag);
		if (r < 0)
			(void)sqlite3_reset(statement);
	}
	if (r < 0)
		return r;
	*ret_n = chain.n;
	*ret_head = chain.head;
	return 0;
}

int state_audit_seek(struct state *state, const char *site, uint32_t last, uint64_t *ret_after)
{
	sqlite3_stmt *statement;
	uint64_t after = 0;
	int r;

	if (last == 0 || last > AUDIT_MAX_LAST)
		return -EINVAL;
	if (*site)
		r = statement_get(
			state, &statement, SQL_AUDIT_SEEK_SITE, "it", (int64_t)last - 1, site);
	else
		r = statement_get(state, &statement, SQL_AUDIT_SEEK, "i", (int64_t)last - 1);
	if (r < 0)
		return r;
	r = statement_step(state, statement);
	if (r > 0) {
		after = (uint64_t)sqlite3_column_int64(statement, 0) - 1;
		(void)sqlite3_reset(statement);
	}
	if (r < 0)
		return r;
	*ret_after = after;
	return 0;
}

int state_audit_walk(struct state *state, const char *site, uint64_t after, uint32_t max,
	state_audit_fn *take, void *data)
{
	sqlite3_stmt *statement;
	int64_t limit = max < INT32_MAX ? max : INT32_MAX;
	struct chain_row row;
	int n = 0, r;

	/* Sequence numbers are signed in SQLite. */
	if (after > INT64_MAX)
		return 0;
	if (*site)
		r = statement_get(
			state, &statement, SQL_AUDIT_FROM_SITE, "iit", (int64_t)after, limit, site);
	else
		r = statement_get(state, &statement, SQL_AUDIT_FROM, "ii", (int64_t)after, limit);
	while (r >= 0 && (r = statement_step(state, statement)) > 0) {
		r = read_row(&row, statement, NULL);
		if (r < 0) {
			/* Shown as zeros: who walks the chain sees that they are wrong. */
			row.prev = row.hash = (struct digest){ 0 };
			r = 0;
		}
		take(data, &row);
		n++;
	}
	return r < 0 ? r : n;
}
