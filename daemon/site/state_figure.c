/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "site/state_internal.h"

/* Figures by name: whoever measures one more adds a name, not a column. */
#define ENTROPY "prototype_entropy"
#define NEIGHBOURS "neighbours"
#define HARDNESS "hardness.bytes" /* of its .khard */
#define OF_OBJECTIVE "objective." /* and its own name */

static const struct figure_field shadow_figures[] = {
	{ "shadow.n", offsetof(struct shadow_row, n), FIGURE_U64 },
	{ "shadow.agreed", offsetof(struct shadow_row, n_agreed), FIGURE_U64 },
	{ "shadow.ng", offsetof(struct shadow_row, n_ng), FIGURE_U64 },
	{ "shadow.champion_ng", offsetof(struct shadow_row, n_champion_ng), FIGURE_U64 },
	{ "shadow.novelty", offsetof(struct shadow_row, novelty), FIGURE_DOUBLE },
	{ "shadow.champion_novelty", offsetof(struct shadow_row, champion_novelty), FIGURE_DOUBLE },
	{ "shadow.cosine", offsetof(struct shadow_row, cosine), FIGURE_DOUBLE },
	{ "shadow.seconds", offsetof(struct shadow_row, seconds), FIGURE_DOUBLE },
};

static const struct figure_field shots_figures[] = {
	{ "shots.n", offsetof(struct shots_row, n), FIGURE_U32 },
	{ "shots.n_classes", offsetof(struct shots_row, n_classes), FIGURE_U32 },
	{ "shots.frozen1", offsetof(struct shots_row, frozen1), FIGURE_DOUBLE },
	{ "shots.frozen5", offsetof(struct shots_row, frozen5), FIGURE_DOUBLE },
	{ "shots.candidate1", offsetof(struct shots_row, candidate1), FIGURE_DOUBLE },
	{ "shots.candidate5", offsetof(struct shots_row, candidate5), FIGURE_DOUBLE },
	{ "shots.lo1", offsetof(struct shots_row, lo1), FIGURE_DOUBLE },
	{ "shots.hi1", offsetof(struct shots_row, hi1), FIGURE_DOUBLE },
	{ "shots.lo5", offsetof(struct shots_row, lo5), FIGURE_DOUBLE },
	{ "shots.hi5", offsetof(struct shots_row, hi5), FIGURE_DOUBLE },
};

double figure_get(const void *row, const struct figure_field *field)
{
	const char *at = (const char *)row + field->offset;
	uint32_t number;
	uint64_t count;
	double value;
	bool flag;

	switch (field->kind) {
	case FIGURE_U32:
		memcpy(&number, at, sizeof(number));
		return number;
	case FIGURE_U64:
		memcpy(&count, at, sizeof(count));
		return (double)count;
	case FIGURE_BOOL:
		memcpy(&flag, at, sizeof(flag));
		return flag;
	default:
		memcpy(&value, at, sizeof(value));
		return value;
	}
}

/* What is no count is none: files come from outside. */
static uint64_t count_of(double value, double limit)
{
	return value > 0 && value < limit ? (uint64_t)value : 0;
}

void figure_set(void *row, const struct figure_field *field, double value)
{
	uint64_t count = count_of(value, 0x1p53);
	uint32_t number = (uint32_t)count_of(value, 0x1p32);
	char *at = (char *)row + field->offset;
	bool flag = value > 0;

	switch (field->kind) {
	case FIGURE_U32:
		memcpy(at, &number, sizeof(number));
		break;
	case FIGURE_U64:
		memcpy(at, &count, sizeof(count));
		break;
	case FIGURE_BOOL:
		memcpy(at, &flag, sizeof(flag));
		break;
	default:
		memcpy(at, &value, sizeof(value));
	}
}

static int put(struct state *state, int64_t id, uint32_t version, const char *name, double value)
{
	return statement_run(state, SQL_FIGURE_PUT, "iitd", id, (int64_t)version, name, value);
}

int figures_put(
	struct state *state, int64_t id, const struct version_row *row, uint64_t hardness_bytes)
{
	const struct judgement_row *candidate = &row->candidate;
	int r = 0;

	if (candidate->has_entropy)
		r = put(state, id, row->version, ENTROPY, (double)candidate->entropy);
	if (r >= 0 && candidate->has_neighbours)
		r = put(state, id, row->version, NEIGHBOURS, (double)candidate->neighbours);
	if (r >= 0 && hardness_bytes > 0)
		r = put(state, id, row->version, HARDNESS, (double)hardness_bytes);
	for (size_t i = 0; row->shots.n > 0 && i < ARRAY_SIZE(shots_figures) && r >= 0; i++)
		r = put(state, id, row->version, shots_figures[i].name,
			figure_get(&row->shots, &shots_figures[i]));
	for (uint32_t i = 0; i < row->n_figures && r >= 0; i++) {
		char name[sizeof(OF_OBJECTIVE) + sizeof(row->figures[i].name)];

		(void)snprintf(name, sizeof(name), OF_OBJECTIVE "%s", row->figures[i].name);
		r = put(state, id, row->version, (const char *)name, row->figures[i].value);
	}
	return r;
}

static void take_objective(struct version_row *row, const char *name, double value)
{
	struct named_figure *figure = &row->figures[row->n_figures];

	if (row->n_figures == VERSION_MAX_FIGURES || strlen(name) >= sizeof(figure->name))
		return;
	(void)snprintf(figure->name, sizeof(figure->name), "%s", name);
	figure->value = value;
	row->n_figures++;
}

static void take(struct version_row *row, const char *name, double value)
{
	if (strcmp(name, ENTROPY) == 0) {
		row->candidate.has_entropy = true;
		row->candidate.entropy = (float)value;
	} else if (strcmp(name, NEIGHBOURS) == 0) {
		row->candidate.has_neighbours = true;
		row->candidate.neighbours = (float)value;
	} else if (strcmp(name, HARDNESS) == 0) {
		row->hardness_bytes = count_of(value, 0x1p53);
	}
	if (strncmp(name, OF_OBJECTIVE, strlen(OF_OBJECTIVE)) == 0)
		take_objective(row, name + strlen(OF_OBJECTIVE), value);
	for (size_t i = 0; i < ARRAY_SIZE(shots_figures); i++)
		if (strcmp(name, shots_figures[i].name) == 0)
			figure_set(&row->shots, &shots_figures[i], value);
	for (size_t i = 0; i < ARRAY_SIZE(shadow_figures); i++)
		if (strcmp(name, shadow_figures[i].name) == 0)
			figure_set(&row->shadow, &shadow_figures[i], value);
}

static int read_withdrawal(struct state *state, int64_t id, struct version_row *row)
{
	sqlite3_stmt *statement;
	int r;

	r = statement_get(state, &statement, SQL_WITHDRAWN, "ii", id, (int64_t)row->version);
	if (r < 0)
		return r;
	r = statement_step(state, statement);
	if (r > 0) {
		r = statement_text(statement, 0, row->withdrawn, sizeof(row->withdrawn));
		(void)sqlite3_reset(statement);
	}
	return r;
}

/* What is not a number was stored as NULL. */
static double value_of(sqlite3_stmt *statement, int column)
{
	return sqlite3_column_type(statement, column) == SQLITE_NULL
		       ? (double)NAN
		       : sqlite3_column_double(statement, column);
}

int figures_read(struct state *state, struct version_row *row)
{
	sqlite3_stmt *statement;
	int64_t id;
	int r;

	r = site_id(state, row->site, &id);
	if (r < 0)
		return r;
	r = statement_get(state, &statement, SQL_FIGURES, "ii", id, (int64_t)row->version);
	while (r >= 0 && (r = statement_step(state, statement)) > 0) {
		const unsigned char *name = sqlite3_column_text(statement, 0);

		if (name)
			take(row, (const char *)name, value_of(statement, 1));
	}
	return r < 0 ? r : read_withdrawal(state, id, row);
}

/* ---- as a shadow */

static int store_shadow(
	struct state *state, const char *site, uint32_t version, const struct shadow_row *row)
{
	int64_t id;
	int r = site_id(state, site, &id);

	for (size_t i = 0; i < ARRAY_SIZE(shadow_figures) && r >= 0; i++)
		r = put(state, id, version, shadow_figures[i].name,
			figure_get(row, &shadow_figures[i]));
	return r;
}

int state_shadow_store(
	struct state *state, const char *site, uint32_t version, const struct shadow_row *row)
{
	int r = state_begin(state);

	return r < 0 ? r : state_end(state, store_shadow(state, site, version, row));
}

/* ---- withdrawn */

static int withdraw(struct state *state, const char *site, uint32_t version, const char *reason,
	uint32_t *ret_version)
{
	char kept[sizeof(((struct version_row *)NULL)->withdrawn)];
	uint32_t champion, predecessor;
	struct version_row row;
	char who[128];
	int64_t id;
	int r;

	r = site_id(state, site, &id);
	if (r < 0)
		return r;
	r = promotion_top(state, id, &champion, &predecessor);
	if (r < 0)
		return r;
	if (version == 0 || champion != version)
		return -ESTALE;
	r = state_version_get(state, site, version, &row);
	if (r < 0)
		return r;
	(void)snprintf(kept, sizeof(kept), "%s", reason);
	r = statement_run(
		state, SQL_WITHDRAW, "iiht", id, (int64_t)version, &row.mask, (const char *)kept);
	if (r < 0)
		return r;
	(void)snprintf(who, sizeof(who), "kamend: %.110s", reason);
	return champion_pop(state, site, id, "mask.withdraw", who, ret_version);
}

int state_withdraw(struct state *state, const char *site, uint32_t version, const char *reason,
	uint32_t *ret_version)
{
	uint32_t to = 0;
	int r = state_begin(state);

	if (r < 0)
		return r;
	r = state_end(state, withdraw(state, site, version, reason, &to));
	if (r < 0)
		return r;
	*ret_version = to;
	return 0;
}

int state_is_withdrawn(struct state *state, const char *site, const struct digest *mask)
{
	sqlite3_stmt *statement;
	int64_t id;
	int r;

	r = site_id(state, site, &id);
	if (r < 0)
		return r;
	r = statement_get(state, &statement, SQL_WITHDRAWN_MASK, "ih", id, mask);
	if (r < 0)
		return r;
	r = statement_step(state, statement);
	if (r > 0)
		(void)sqlite3_reset(statement);
	return r;
}
