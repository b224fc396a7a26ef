/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "site/state_internal.h"

static const char *const state_names[] = {
	[VERSION_LEARNING] = "learning",
	[VERSION_CANDIDATE] = "candidate",
	[VERSION_HELD] = "held",
	[VERSION_CHAMPION] = "champion",
	[VERSION_RETIRED] = "retired",
	[VERSION_FAILED] = "failed",
};

const char *version_state_name(enum version_state state)
{
	return (size_t)state < ARRAY_SIZE(state_names) ? state_names[state] : "unknown";
}

static int version_state_parse(enum version_state *ret_state, const char *name)
{
	for (unsigned i = 0; i < ARRAY_SIZE(state_names); i++) {
		if (strcmp(state_names[i], name) == 0) {
			*ret_state = (enum version_state)i;
			return 0;
		}
	}
	return -EBADMSG;
}

/* SQLite stores what is not a number as NULL. */
static double number(sqlite3_stmt *statement, int column)
{
	return sqlite3_column_type(statement, column) == SQLITE_NULL
		       ? NAN
		       : sqlite3_column_double(statement, column);
}

static uint64_t integer(sqlite3_stmt *statement, int column)
{
	return (uint64_t)sqlite3_column_int64(statement, column);
}

static struct judgement_row read_judgement(sqlite3_stmt *statement, int column)
{
	return (struct judgement_row){
		.n = (uint32_t)integer(statement, column),
		.retrieval = (float)number(statement, column + 1),
		.margin = (float)number(statement, column + 2),
		.effective_rank = (float)number(statement, column + 3),
	};
}

/* Columns as in statement.c, VERSION_COLUMNS. */
int version_read(struct version_row *ret_row, sqlite3_stmt *statement)
{
	struct version_row row = {
		.version = (uint32_t)integer(statement, 1),
		.density = number(statement, 3),
		.lowest_density = number(statement, 4),
		.loss_ratio = number(statement, 5),
		.seconds = number(statement, 6),
		.n_bytes = integer(statement, 7),
		.n_elements = integer(statement, 8),
		.n_flips = integer(statement, 9),
		.seed = integer(statement, 10),
		.created_us = integer(statement, 11),
		.steps = (uint32_t)integer(statement, 12),
		.n_images = (uint32_t)integer(statement, 13),
		.threads = (uint32_t)integer(statement, 14),
		.frozen = read_judgement(statement, 22),
		.candidate = read_judgement(statement, 26),
		.passed = integer(statement, 30) != 0,
	};
	char name[16];

	row.candidate.retrieval_error = (float)number(statement, 32);
	row.candidate.margin_error = (float)number(statement, 33);
	row.kept_step = (uint32_t)integer(statement, 34);
	row.keep = integer(statement, 35) != 0;
	row.drifted = integer(statement, 40) != 0;
	if (statement_text(statement, 36, row.why, sizeof(row.why)) < 0 ||
		statement_text(statement, 37, row.recipe_text, sizeof(row.recipe_text)) < 0 ||
		statement_text(statement, 38, row.prep_text, sizeof(row.prep_text)) < 0 ||
		statement_text(statement, 39, row.objective, sizeof(row.objective)) < 0)
		return -EBADMSG;
	if (statement_text(statement, 0, row.site, sizeof(row.site)) < 0 ||
		statement_text(statement, 2, name, sizeof(name)) < 0 ||
		version_state_parse(&row.state, name) < 0 ||
		statement_text(statement, 15, row.isa, sizeof(row.isa)) < 0 ||
		statement_digest(statement, 16, &row.base) < 0 ||
		statement_digest(statement, 17, &row.prep) < 0 ||
		statement_digest(statement, 18, &row.mask) < 0 ||
		statement_digest(statement, 19, &row.manifest) < 0 ||
		statement_digest(statement, 20, &row.recipe) < 0 ||
		statement_digest(statement, 21, &row.space) < 0 ||
		statement_text(statement, 31, row.reasons, sizeof(row.reasons)) < 0)
		return -EBADMSG;
	*ret_row = row;
	return 0;
}

int version_collect(struct state *state, sqlite3_stmt *statement, struct version_row **ret_rows,
	uint32_t *ret_n)
{
	_cleanup_(freep) struct version_row *rows = NULL;
	uint32_t n = 0;
	int r;

	while ((r = statement_step(state, statement)) > 0) {
		struct version_row *grown = realloc(rows, (n + 1) * sizeof(*rows));

		if (grown)
			rows = grown;
		r = grown ? version_read(&rows[n++], statement) : -ENOMEM;
		if (r < 0) {
			(void)sqlite3_reset(statement);
			break;
		}
	}
	for (uint32_t i = 0; i < n && r >= 0; i++)
		r = figures_read(state, &rows[i]);
	if (r < 0)
		return r;
	*ret_rows = TAKE_PTR(rows);
	*ret_n = n;
	return 0;
}

int state_version_get(
	struct state *state, const char *site, uint32_t version, struct version_row *ret_row)
{
	sqlite3_stmt *statement;
	int64_t id;
	int r;

	r = site_id(state, site, &id);
	if (r < 0)
		return r;
	r = statement_get(state, &statement, SQL_VERSION_GET, "ii", id, (int64_t)version);
	if (r < 0)
		return r;
	r = statement_step(state, statement);
	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	r = version_read(ret_row, statement);
	(void)sqlite3_reset(statement);
	return r < 0 ? r : figures_read(state, ret_row);
}

int state_version_list(
	struct state *state, const char *site, struct version_row **ret_rows, uint32_t *ret_n)
{
	sqlite3_stmt *statement;
	int64_t id;
	int r;

	r = site_id(state, site, &id);
	if (r < 0)
		return r;
	r = statement_get(state, &statement, SQL_VERSION_LIST, "i", id);
	if (r < 0)
		return r;
	return version_collect(state, statement, ret_rows, ret_n);
}

int version_set_state(
	struct state *state, int64_t id, uint32_t version, enum version_state version_state)
{
	if (version == 0) /* the base has no row */
		return 0;
	return statement_run(state, SQL_VERSION_STATE, "tii", version_state_name(version_state), id,
		(int64_t)version);
}

/* The champion changes: both versions' states and the audit row, in the caller's transaction. */
static int change_champion(struct state *state, const char *site, int64_t id, uint32_t from,
	uint32_t to, const char *what, const char *who)
{
	char detail[160];
	int r;

	r = version_set_state(state, id, from, VERSION_RETIRED);
	if (r < 0)
		return r;
	r = version_set_state(state, id, to, VERSION_CHAMPION);
	if (r < 0)
		return r;
	(void)snprintf(detail, sizeof(detail), "from %u to %u by %.100s", from, to, who);
	return audit_add(state, site, what, detail);
}

static int check_promotable(struct state *state, const char *site, uint32_t version)
{
	struct version_row row;
	int r;

	if (version == 0)
		return 0;
	r = state_version_get(state, site, version, &row);
	if (r < 0)
		return r;
	return row.state == VERSION_CANDIDATE || row.state == VERSION_RETIRED ||
			       row.state == VERSION_CHAMPION
		       ? 0
		       : -EPERM;
}

int champion_set(struct state *state, const char *site, int64_t id, uint32_t version,
	const char *what, const char *who)
{
	uint32_t champion, predecessor;
	int r;

	r = promotion_top(state, id, &champion, &predecessor);
	if (r < 0)
		return r;
	if (champion == version)
		return 0;
	r = statement_run(
		state, SQL_PROMOTION_ADD, "iii", id, (int64_t)version, (int64_t)clock_wall_us());
	if (r >= 0)
		r = live_put_trial(state, id, version);
	if (r < 0)
		return r;
	return change_champion(state, site, id, champion, version, what, who);
}

static int promote(struct state *state, const char *site, uint32_t version, const char *who)
{
	int64_t id;
	int r = site_id_changeable(state, site, &id);

	if (r < 0)
		return r;
	r = check_promotable(state, site, version);
	if (r < 0)
		return r;
	return champion_set(state, site, id, version, "mask.promote", who);
}

int state_promote(struct state *state, const char *site, uint32_t version, const char *who)
{
	int r = state_begin(state);

	if (r < 0)
		return r;
	return state_end(state, promote(state, site, version, who));
}

/* What lies below the champion takes its place. */
int champion_pop(struct state *state, const char *site, int64_t id, const char *what,
	const char *who, uint32_t *ret_version)
{
	uint32_t champion, predecessor;
	int r;

	r = promotion_top(state, id, &champion, &predecessor);
	if (r <= 0)
		return r < 0 ? r : -ENODATA;
	r = statement_run(state, SQL_PROMOTION_POP, "i", id);
	if (r >= 0)
		r = live_put_trial(state, id, 0);
	if (r < 0)
		return r;
	*ret_version = predecessor;
	return change_champion(state, site, id, champion, predecessor, what, who);
}

static int rollback(struct state *state, const char *site, const char *who, uint32_t *ret_version)
{
	int64_t id;
	int r = site_id(state, site, &id);

	return r < 0 ? r : champion_pop(state, site, id, "mask.rollback", who, ret_version);
}

int state_rollback(struct state *state, const char *site, const char *who, uint32_t *ret_version)
{
	uint32_t version = 0;
	int r;

	r = state_begin(state);
	if (r < 0)
		return r;
	r = state_end(state, rollback(state, site, who, &version));
	if (r < 0)
		return r;
	*ret_version = version;
	return 0;
}
