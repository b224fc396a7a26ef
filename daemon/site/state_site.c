/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include <fcntl.h>

#include "site/state_internal.h"
#include "wire.h"

int site_id(struct state *state, const char *site, int64_t *ret_id)
{
	sqlite3_stmt *statement;
	int r;

	r = statement_get(state, &statement, SQL_SITE_ID, "t", site);
	if (r < 0)
		return r;
	r = statement_step(state, statement);
	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	*ret_id = sqlite3_column_int64(statement, 0);
	(void)sqlite3_reset(statement);
	return 0;
}

/* Only the site's own keys are stored; the rest follows the configuration. */
static int store_settings(
	struct state *state, int64_t id, const struct site_settings *settings, uint32_t keys)
{
	char value[320];

	for (unsigned i = 0; config_site_keys[i]; i++) {
		const char *key = config_site_keys[i];
		int r;

		if (!(keys & 1u << i))
			continue;
		r = site_settings_get(settings, key, value, sizeof(value));
		if (r == 0)
			r = statement_run(state, SQL_SETTING_ADD, "itt", id, key, value);
		if (r < 0)
			return r;
	}
	return 0;
}

/* "by WHO: key=value ...", as long as there is room; state.db has the whole of it. */
static void describe_settings(char *text, size_t n_bytes, const struct site_settings *settings,
	uint32_t keys, const char *who)
{
	size_t n = (size_t)snprintf(text, n_bytes, "by %.100s", who);
	char value[320];

	for (unsigned i = 0; config_site_keys[i] && n < n_bytes; i++) {
		const char *key = config_site_keys[i];

		if (keys & 1u << i && site_settings_get(settings, key, value, sizeof(value)) == 0)
			n += (size_t)snprintf(text + n, n_bytes - n, ", %s=%s", key, value);
	}
}

static int add_site(struct state *state, const char *site, const struct site_settings *settings,
	uint32_t keys, const char *who)
{
	char detail[1024];
	int64_t id;
	int r;

	r = statement_run(state, SQL_SITE_ADD, "ti", site, (int64_t)clock_wall_us());
	if (r < 0)
		return r;
	r = site_id(state, site, &id);
	if (r < 0)
		return r;
	r = store_settings(state, id, settings, keys);
	if (r < 0)
		return r;
	describe_settings(detail, sizeof(detail), settings, keys, who);
	return audit_add(state, site, "site.create", detail);
}

int state_site_create(struct state *state, const char *site, const struct site_settings *settings)
{
	char value[320], usual[320];
	uint32_t keys = 0;

	for (unsigned i = 0; config_site_keys[i]; i++) {
		const char *key = config_site_keys[i];
		int r = site_settings_get(settings, key, value, sizeof(value));

		if (r == 0)
			r = site_settings_get(&state->defaults, key, usual, sizeof(usual));
		if (r < 0)
			return r;
		if (strcmp(value, usual) != 0)
			keys |= 1u << i;
	}
	return state_site_create_with(state, site, settings, keys, "the daemon");
}

int state_site_create_with(struct state *state, const char *site,
	const struct site_settings *settings, uint32_t keys, const char *who)
{
	int64_t id;
	int r;

	if (wire_site_name_check(site) < 0)
		return -EINVAL;
	r = site_id(state, site, &id);
	if (r != -ENOENT)
		return r < 0 ? r : -EEXIST;
	r = sweep_make_folders(state, site);
	if (r < 0)
		return r;
	r = state_begin(state);
	if (r < 0)
		return r;
	return state_end(state, add_site(state, site, settings, keys, who));
}

void state_set_defaults(struct state *state, const struct site_settings *defaults)
{
	state->defaults = *defaults;
}

int state_site_delete(struct state *state, const char *site, const char *who)
{
	char detail[128];
	int64_t id;
	int r;

	(void)snprintf(detail, sizeof(detail), "by %.100s", who);
	r = state_begin(state);
	if (r < 0)
		return r;
	r = site_id(state, site, &id);
	if (r >= 0)
		r = statement_run(state, SQL_SITE_DELETE, "i", id);
	if (r >= 0)
		r = audit_add(state, site, "site.delete", detail);
	r = state_end(state, r);
	if (r < 0)
		return r;
	state_image_forget(state, id);
	/* A full store is a million files; what nobody tidies up is swept at the next start. */
	(void)sweep_throw_away(state, site);
	return 0;
}

static int read_settings(struct state *state, int64_t id, struct site_settings *settings)
{
	sqlite3_stmt *statement;
	char key[64], value[320];
	int r;

	*settings = state->defaults;
	r = statement_get(state, &statement, SQL_SETTINGS, "i", id);
	while (r >= 0 && (r = statement_step(state, statement)) > 0) {
		if (statement_text(statement, 0, key, sizeof(key)) < 0 ||
			statement_text(statement, 1, value, sizeof(value)) < 0 ||
			site_settings_set(settings, key, value, NULL) < 0)
			r = -EBADMSG;
		if (r < 0)
			(void)sqlite3_reset(statement);
	}
	return r;
}

int promotion_top(
	struct state *state, int64_t id, uint32_t *ret_champion, uint32_t *ret_predecessor)
{
	sqlite3_stmt *statement;
	uint32_t versions[2] = { 0, 0 };
	int n = 0, r;

	r = statement_get(state, &statement, SQL_PROMOTION_TOP, "i", id);
	while (r >= 0 && (r = statement_step(state, statement)) > 0)
		if (n < 2)
			versions[n++] = (uint32_t)sqlite3_column_int64(statement, 0);
	if (r < 0)
		return r;
	*ret_champion = versions[0];
	*ret_predecessor = versions[1];
	return n;
}

int state_site_get(struct state *state, const char *site, struct site_row *ret_row)
{
	struct site_row row = { 0 };
	sqlite3_stmt *statement;
	int64_t id;
	int r;

	if (strlen(site) >= sizeof(row.site))
		return -ENOENT;
	(void)snprintf(row.site, sizeof(row.site), "%s", site);
	r = statement_get(state, &statement, SQL_SITE_GET, "t", site);
	if (r < 0)
		return r;
	r = statement_step(state, statement);
	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	id = sqlite3_column_int64(statement, 0);
	row.n_images = (uint64_t)sqlite3_column_int64(statement, 1);
	row.n_duplicates = (uint64_t)sqlite3_column_int64(statement, 2);
	row.n_rejected = (uint64_t)sqlite3_column_int64(statement, 3);
	row.n_gaps = (uint64_t)sqlite3_column_int64(statement, 4);
	row.replay_bytes = (uint64_t)sqlite3_column_int64(statement, 5);
	row.n_new = (uint64_t)sqlite3_column_int64(statement, 7);
	row.round_us = (uint64_t)sqlite3_column_int64(statement, 8);
	r = site_hold_parse(&row.hold, (const char *)sqlite3_column_text(statement, 9));
	(void)sqlite3_reset(statement);
	if (r < 0)
		return r;

	r = read_settings(state, id, &row.settings);
	if (r < 0)
		return r;
	r = promotion_top(state, id, &row.champion, &row.predecessor);
	if (r < 0)
		return r;
	*ret_row = row;
	return 0;
}

static int site_names(struct state *state, char (**ret_names)[64], uint32_t *ret_n)
{
	_cleanup_(freep) char(*names)[64] = NULL;
	sqlite3_stmt *statement;
	uint32_t n = 0;
	int r;

	r = statement_get(state, &statement, SQL_SITE_NAMES, "");
	while (r >= 0 && (r = statement_step(state, statement)) > 0) {
		char(*grown)[64] = realloc(names, (n + 1) * sizeof(*names));

		if (grown)
			names = grown;
		r = grown ? statement_text(statement, 0, names[n++], sizeof(*names)) : -ENOMEM;
		if (r < 0)
			(void)sqlite3_reset(statement);
	}
	if (r < 0)
		return r;
	*ret_names = TAKE_PTR(names);
	*ret_n = n;
	return 0;
}

int state_site_list(struct state *state, struct site_row **ret_rows, uint32_t *ret_n)
{
	_cleanup_(freep) char(*names)[64] = NULL;
	_cleanup_(freep) struct site_row *rows = NULL;
	uint32_t n = 0;
	int r;

	r = site_names(state, &names, &n);
	if (r < 0)
		return r;
	rows = calloc(n + 1, sizeof(*rows));
	if (!rows)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++) {
		r = state_site_get(state, names[i], &rows[i]);
		if (r < 0)
			return r;
	}
	*ret_rows = TAKE_PTR(rows);
	*ret_n = n;
	return 0;
}
