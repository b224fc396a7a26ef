/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "site/hard_list.h"
#include "site/state_internal.h"

int state_hardness_forget(struct state *state, const char *site, uint32_t n_max)
{
	int64_t id;
	int r = state_batch_join(state);

	if (r < 0)
		return r;
	r = site_id(state, site, &id);
	if (r >= 0)
		r = statement_run(state, SQL_HARDNESS_FORGET, "ii", id, (int64_t)n_max);
	return state_batch_leave(state, r < 0 ? r : sqlite3_changes(state->db));
}

int state_hardness_put(
	struct state *state, const char *site, const struct hard_image *images, uint32_t n)
{
	int64_t id;
	int r = state_batch_join(state);

	if (r < 0)
		return r;
	r = site_id(state, site, &id);
	for (uint32_t i = 0; r >= 0 && i < n; i++)
		r = statement_run(state, SQL_HARDNESS_PUT, "dih", (double)images[i].hardness, id,
			&images[i].hash);
	return state_batch_leave(state, r);
}

static int read_row(sqlite3_stmt *statement, struct hard_row *ret_row)
{
	const char *name = (const char *)sqlite3_column_text(statement, 7);
	struct hard_row row = {
		.hardness = sqlite3_column_double(statement, 1),
		.capture_us = (uint64_t)sqlite3_column_int64(statement, 5),
		.arrived_us = (uint64_t)sqlite3_column_int64(statement, 6),
	};

	if (statement_digest(statement, 0, &row.hash) < 0 ||
		statement_text(statement, 2, row.source, sizeof(row.source)) < 0 ||
		statement_text(statement, 3, row.sender, sizeof(row.sender)) < 0 ||
		statement_text(statement, 4, row.part_id, sizeof(row.part_id)) < 0 ||
		(name && statement_text(statement, 7, row.label, sizeof(row.label)) < 0))
		return -EBADMSG;
	*ret_row = row;
	return 0;
}

int state_hardest(struct state *state, const char *site, uint32_t n_max, struct hard_row **ret_rows,
	uint32_t *ret_n)
{
	_cleanup_(freep) struct hard_row *rows = calloc((size_t)n_max + 1, sizeof(*rows));
	sqlite3_stmt *statement;
	uint32_t n = 0;
	int64_t id;
	int r;

	if (!rows)
		return -ENOMEM;
	r = site_id(state, site, &id);
	if (r >= 0)
		r = statement_get(state, &statement, SQL_HARDEST, "ii", id, (int64_t)n_max);
	while (r >= 0 && (r = statement_step(state, statement)) > 0) {
		r = read_row(statement, &rows[n++]);
		if (r < 0)
			(void)sqlite3_reset(statement);
	}
	if (r < 0)
		return r;
	*ret_rows = TAKE_PTR(rows);
	*ret_n = n;
	return 0;
}
