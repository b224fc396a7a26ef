/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "site/state_internal.h"

struct audit_row {
	uint64_t seq, time_us;
	const char *site, *what, *detail;
	struct digest prev;
};

static void put_u64(struct digest_state *sum, uint64_t value)
{
	uint8_t bytes[8];

	for (unsigned i = 0; i < 8; i++)
		bytes[i] = (uint8_t)(value >> (8 * i));
	digest_update(sum, bytes, sizeof(bytes));
}

static struct digest hash_row(const struct audit_row *row)
{
	static const char domain[] = "kamen audit 1";
	struct digest_state sum;

	digest_init(&sum);
	/* With their final NULs, so that no two rows give the same bytes. */
	digest_update(&sum, domain, sizeof(domain));
	digest_update(&sum, row->prev.bytes, DIGEST_BYTES);
	put_u64(&sum, row->seq);
	put_u64(&sum, row->time_us);
	digest_update(&sum, row->site, strlen(row->site) + 1);
	digest_update(&sum, row->what, strlen(row->what) + 1);
	digest_update(&sum, row->detail, strlen(row->detail) + 1);
	return digest_final(&sum);
}

int audit_add(struct state *state, const char *site, const char *what, const char *detail)
{
	struct audit_row row = {
		.seq = 1, .time_us = clock_wall_us(), .site = site, .what = what, .detail = detail
	};
	sqlite3_stmt *statement;
	struct digest hash;
	int r;

	r = statement_get(state, &statement, SQL_AUDIT_HEAD, "");
	if (r < 0)
		return r;
	r = statement_step(state, statement);
	if (r > 0) {
		row.seq = (uint64_t)sqlite3_column_int64(statement, 0) + 1;
		r = statement_digest(statement, 1, &row.prev);
		(void)sqlite3_reset(statement);
	}
	if (r < 0)
		return r;
	hash = hash_row(&row);
	return statement_run(state, SQL_AUDIT_ADD, "iittthh", (int64_t)row.seq,
		(int64_t)row.time_us, row.site, row.what, row.detail, &row.prev, &hash);
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
	struct digest head = { 0 };
	sqlite3_stmt *statement;
	uint64_t n = 0;
	int r;

	r = statement_get(state, &statement, SQL_AUDIT_HEAD, "");
	if (r < 0)
		return r;
	r = statement_step(state, statement);
	if (r > 0) {
		n = (uint64_t)sqlite3_column_int64(statement, 0);
		r = statement_digest(statement, 1, &head);
		(void)sqlite3_reset(statement);
	}
	if (r < 0)
		return r;
	*ret_n = n;
	*ret_head = head;
	return 0;
}

static const char *text_of(sqlite3_stmt *statement, int column)
{
	const char *text = (const char *)sqlite3_column_text(statement, column);

	return text ? text : "";
}

/* One row against what the chain must be so far. */
static int verify_row(sqlite3_stmt *statement, uint64_t n, struct digest *head, struct diag *diag)
{
	struct audit_row row = { .seq = (uint64_t)sqlite3_column_int64(statement, 0),
		.time_us = (uint64_t)sqlite3_column_int64(statement, 1),
		.site = text_of(statement, 2),
		.what = text_of(statement, 3),
		.detail = text_of(statement, 4) };
	struct digest hash, right;

	if (statement_digest(statement, 5, &row.prev) < 0 ||
		statement_digest(statement, 6, &hash) < 0)
		return diag_set(
			diag, EBADMSG, "audit row %llu: not a hash", (unsigned long long)row.seq);
	if (row.seq != n + 1)
		return diag_set(
			diag, EBADMSG, "audit row %llu is missing", (unsigned long long)n + 1);
	right = hash_row(&row);
	if (!digest_equal(&row.prev, head) || !digest_equal(&hash, &right))
		return diag_set(
			diag, EBADMSG, "audit row %llu was changed", (unsigned long long)row.seq);
	*head = right;
	return 0;
}

int state_audit_verify(
	struct state *state, uint64_t *ret_n, struct digest *ret_head, struct diag *diag)
{
	struct digest head = { 0 };
	sqlite3_stmt *statement;
	uint64_t n = 0;
	int r;

	r = statement_get(state, &statement, SQL_AUDIT_ALL, "");
	while (r >= 0 && (r = statement_step(state, statement)) > 0) {
		r = verify_row(statement, n, &head, diag);
		if (r < 0)
			(void)sqlite3_reset(statement);
		else
			n++;
	}
	if (r < 0)
		return r;
	*ret_n = n;
	*ret_head = head;
	return 0;
}
