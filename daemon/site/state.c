/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "site/state_internal.h"

#define LARGE_BYTES \
	(32 << 20) /* a hundred thousand images; quick_check takes a tenth of a second */

/* Figures of versions, and what was rolled back by itself. */
#define FIGURE_TABLES \
	"CREATE TABLE figure (" \
	" site_id INTEGER NOT NULL, version INTEGER NOT NULL, name TEXT NOT NULL, value REAL," \
	" PRIMARY KEY (site_id, version, name), FOREIGN KEY (site_id, version)" \
	" REFERENCES version (site_id, version) ON DELETE CASCADE) STRICT, WITHOUT ROWID;" \
	"CREATE TABLE withdrawal (" \
	" site_id INTEGER NOT NULL REFERENCES site (id) ON DELETE CASCADE," \
	" version INTEGER NOT NULL, mask BLOB NOT NULL, reason TEXT NOT NULL," \
	" PRIMARY KEY (site_id, version)) STRICT, WITHOUT ROWID;"

/* The class of an image, which is named by it alone: it goes when the image goes. */
#define LABEL_TABLE \
	"CREATE TABLE label (" \
	" image_id INTEGER PRIMARY KEY REFERENCES image (id) ON DELETE CASCADE," \
	" site_id INTEGER NOT NULL REFERENCES site (id) ON DELETE CASCADE," \
	" class TEXT NOT NULL, time_us INTEGER NOT NULL) STRICT;" \
	"CREATE INDEX label_of_site ON label (site_id, class);"

/* What champions show on the line, by name; and the audit is asked for by site. */
#define LIVE_TABLE \
	"CREATE TABLE live (" \
	" site_id INTEGER NOT NULL REFERENCES site (id) ON DELETE CASCADE," \
	" name TEXT NOT NULL, value REAL, PRIMARY KEY (site_id, name)) STRICT, WITHOUT ROWID;"
#define AUDIT_INDEX "CREATE INDEX audit_of_site ON audit (site);"

/* Of the images that the latest round of an objective that tells so has told of. */
#define HARDNESS_INDEX \
	"CREATE INDEX image_by_hardness ON image (site_id, hardness) WHERE hardness IS NOT NULL;"

/* Classes by example: their supports, and what masks say of these and of the line's latest images. */
#define CLASS_TABLES \
	"CREATE TABLE class (" \
	" id INTEGER PRIMARY KEY, site_id INTEGER NOT NULL REFERENCES site (id) ON DELETE " \
	"CASCADE," \
	" name TEXT NOT NULL, created_us INTEGER NOT NULL, UNIQUE (site_id, name)) STRICT;" \
	"CREATE TABLE support (" \
	" image_id INTEGER PRIMARY KEY REFERENCES image (id) ON DELETE CASCADE," \
	" class_id INTEGER NOT NULL REFERENCES class (id) ON DELETE CASCADE," \
	" brought INTEGER NOT NULL) STRICT;" \
	"CREATE INDEX support_of_class ON support (class_id);" \
	"CREATE TABLE feature (" \
	" image_id INTEGER NOT NULL REFERENCES image (id) ON DELETE CASCADE," \
	" site_id INTEGER NOT NULL REFERENCES site (id) ON DELETE CASCADE," \
	" space BLOB NOT NULL, data BLOB NOT NULL, UNIQUE (image_id, space)) STRICT;" \
	"CREATE INDEX feature_of_site ON feature (site_id);"

static const char schema[] =
	"CREATE TABLE site ("
	" id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, created_us INTEGER NOT NULL,"
	" last_version INTEGER NOT NULL DEFAULT 0,"
	/* Images up to this id belong to the running round; 0: no round. */
	" pinned INTEGER NOT NULL DEFAULT 0,"
	" n_images INTEGER NOT NULL DEFAULT 0, replay_bytes INTEGER NOT NULL DEFAULT 0,"
	" n_duplicates INTEGER NOT NULL DEFAULT 0, n_rejected INTEGER NOT NULL DEFAULT 0,"
	" n_gaps INTEGER NOT NULL DEFAULT 0,"
	/* What an operator has said: '', paused, frozen. */
	" hold TEXT NOT NULL DEFAULT '',"
	/* Images since the last round began, and when that was; else when the site was made. */
	" n_new INTEGER NOT NULL DEFAULT 0, round_us INTEGER NOT NULL DEFAULT 0,"
	/* As pinned, for a version that is learnt again. */
	" held INTEGER NOT NULL DEFAULT 0) STRICT;"
	"CREATE TABLE setting ("
	" site_id INTEGER NOT NULL REFERENCES site (id) ON DELETE CASCADE,"
	" key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (site_id, key)"
	") STRICT, WITHOUT ROWID;"
	"CREATE TABLE image ("
	/* AUTOINCREMENT: ids are the order of arrival, also after the newest was deleted. */
	" id INTEGER PRIMARY KEY AUTOINCREMENT,"
	" site_id INTEGER NOT NULL REFERENCES site (id) ON DELETE CASCADE,"
	" hash BLOB NOT NULL, blob TEXT NOT NULL, n_bytes INTEGER NOT NULL,"
	" width INTEGER NOT NULL, height INTEGER NOT NULL, n_channels INTEGER NOT NULL,"
	" source TEXT NOT NULL, sender TEXT NOT NULL, part_id TEXT NOT NULL,"
	" capture_us INTEGER NOT NULL, arrived_us INTEGER NOT NULL, hardness REAL,"
	" UNIQUE (site_id, hash), UNIQUE (site_id, blob)) STRICT;"
	"CREATE INDEX image_by_arrival ON image (site_id, id);"
	"CREATE TRIGGER image_added AFTER INSERT ON image BEGIN"
	" UPDATE site SET n_images = n_images + 1, replay_bytes = replay_bytes + new.n_bytes,"
	" n_new = n_new + 1 WHERE id = new.site_id; END;"
	"CREATE TRIGGER image_gone AFTER DELETE ON image BEGIN"
	" UPDATE site SET n_images = n_images - 1, replay_bytes = replay_bytes - old.n_bytes"
	" WHERE id = old.site_id; END;"
	"CREATE TABLE version ("
	" site_id INTEGER NOT NULL REFERENCES site (id) ON DELETE CASCADE,"
	" version INTEGER NOT NULL, state TEXT NOT NULL, density REAL, lowest_density REAL,"
	" loss_ratio REAL, seconds REAL, n_bytes INTEGER, n_elements INTEGER, n_flips INTEGER,"
	" seed INTEGER, created_us INTEGER NOT NULL, steps INTEGER, n_images INTEGER,"
	" threads INTEGER, isa TEXT, base BLOB, prep BLOB, mask BLOB, manifest BLOB, recipe BLOB,"
	" space BLOB, frozen_n INTEGER, frozen_retrieval REAL, frozen_margin REAL,"
	" frozen_rank REAL, candidate_n INTEGER, candidate_retrieval REAL, candidate_margin REAL,"
	" candidate_rank REAL, passed INTEGER NOT NULL DEFAULT 0,"
	" reasons TEXT NOT NULL DEFAULT '', retrieval_error REAL, margin_error REAL,"
	" kept_step INTEGER,"
	" keep INTEGER NOT NULL DEFAULT 0, why TEXT NOT NULL DEFAULT '',"
	" recipe_text TEXT NOT NULL DEFAULT '', prep_text TEXT NOT NULL DEFAULT '',"
	" objective TEXT NOT NULL DEFAULT '', drifted INTEGER NOT NULL DEFAULT 0,"
	" PRIMARY KEY (site_id, version)"
	") STRICT, WITHOUT ROWID;"
	"CREATE UNIQUE INDEX one_round_a_site ON version (site_id) WHERE state = 'learning';"
	/* A stack a site: its top is the champion, what lies below is the predecessor. */
	"CREATE TABLE promotion ("
	" id INTEGER PRIMARY KEY, site_id INTEGER NOT NULL REFERENCES site (id) ON DELETE CASCADE,"
	" version INTEGER NOT NULL, time_us INTEGER NOT NULL) STRICT;"
	"CREATE INDEX promotion_of_site ON promotion (site_id, id);" FIGURE_TABLES LABEL_TABLE
	"CREATE TABLE audit ("
	" seq INTEGER PRIMARY KEY, time_us INTEGER NOT NULL, site TEXT NOT NULL,"
	" what TEXT NOT NULL, detail TEXT NOT NULL, prev BLOB NOT NULL, hash BLOB NOT NULL"
	") STRICT;" AUDIT_INDEX LIVE_TABLE HARDNESS_INDEX CLASS_TABLES;

/* How a database of schema i + 1 becomes one of i + 2. No row is ever taken away. */
static const char *const upgrades[STATE_SCHEMA - 1] = {
	"ALTER TABLE version ADD COLUMN retrieval_error REAL;"
	"ALTER TABLE version ADD COLUMN margin_error REAL;",
	FIGURE_TABLES,
	"ALTER TABLE version ADD COLUMN kept_step INTEGER;",
	"ALTER TABLE site ADD COLUMN hold TEXT NOT NULL DEFAULT '';"
	"ALTER TABLE site ADD COLUMN n_new INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE site ADD COLUMN round_us INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE version ADD COLUMN keep INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE version ADD COLUMN why TEXT NOT NULL DEFAULT '';"
	"ALTER TABLE version ADD COLUMN recipe_text TEXT NOT NULL DEFAULT '';"
	"ALTER TABLE version ADD COLUMN prep_text TEXT NOT NULL DEFAULT '';"
	"UPDATE site SET round_us = max(created_us, coalesce((SELECT max(version.created_us)"
	" FROM version WHERE version.site_id = site.id), 0));"
	"UPDATE site SET n_new = (SELECT count(*) FROM image WHERE image.site_id = site.id"
	" AND image.arrived_us > site.round_us);"
	"DROP TRIGGER image_added;"
	"CREATE TRIGGER image_added AFTER INSERT ON image BEGIN"
	" UPDATE site SET n_images = n_images + 1, replay_bytes = replay_bytes + new.n_bytes,"
	" n_new = n_new + 1 WHERE id = new.site_id; END;",
	LABEL_TABLE,
	AUDIT_INDEX LIVE_TABLE,
	"ALTER TABLE site ADD COLUMN held INTEGER NOT NULL DEFAULT 0;",
	"ALTER TABLE version ADD COLUMN objective TEXT NOT NULL DEFAULT '';",
	"ALTER TABLE version ADD COLUMN drifted INTEGER NOT NULL DEFAULT 0;"
	"UPDATE version SET drifted = 1 WHERE why LIKE 'drift,%';",
	"ALTER TABLE image ADD COLUMN hardness REAL;" HARDNESS_INDEX,
	CLASS_TABLES,
};

/* ---- transactions */

static void roll_back(struct state *state)
{
	/* Some errors have ended the transaction already. */
	if (!sqlite3_get_autocommit(state->db))
		(void)statement_run(state, SQL_ROLLBACK, "");
}

void state_batch_fail(struct state *state, int r)
{
	if (!state->batch_open)
		return;
	state->batch_error = r;
	roll_back(state);
}

int state_relax(struct state *state, bool is_relaxed)
{
	const char *text = is_relaxed ? "PRAGMA synchronous = NORMAL" : "PRAGMA synchronous = FULL";
	int r;

	if (state->is_relaxed == is_relaxed)
		return 0;
	/* Not a statement to be kept: it takes effect when it is prepared. */
	r = statement_error(state, sqlite3_exec(state->db, text, NULL, NULL, NULL));
	if (r >= 0)
		state->is_relaxed = is_relaxed;
	return r;
}

int state_begin(struct state *state)
{
	int r;

	if (!sqlite3_get_autocommit(state->db)) {
		r = statement_run(state, SQL_COMMIT, "");
		if (r < 0)
			state_batch_fail(state, r);
	}
	r = state_relax(state, false);
	return r < 0 ? r : statement_run(state, SQL_BEGIN, "");
}

int state_end(struct state *state, int r)
{
	int q;

	if (r < 0) {
		roll_back(state);
		return r;
	}
	q = statement_run(state, SQL_COMMIT, "");
	if (q < 0) {
		roll_back(state);
		return q;
	}
	return r;
}

int state_commit(struct state *state)
{
	int r = state->batch_error;

	if (r == 0 && !sqlite3_get_autocommit(state->db)) {
		r = statement_run(state, SQL_COMMIT, "");
		if (r < 0)
			roll_back(state);
	}
	state->batch_open = false;
	state->batch_error = 0;
	return r;
}

bool state_batch_open(const struct state *state)
{
	return state->batch_open;
}

/* ---- opening */

static int pragma_int(sqlite3 *db, const char *text, int *ret_value)
{
	sqlite3_stmt *statement;
	int code = sqlite3_prepare_v2(db, text, -1, &statement, NULL);

	if (code != SQLITE_OK)
		return code;
	code = sqlite3_step(statement);
	if (code == SQLITE_ROW) {
		*ret_value = sqlite3_column_int(statement, 0);
		code = SQLITE_OK;
	}
	(void)sqlite3_finalize(statement);
	return code;
}

/*
 * Every row of every table: a second and more where there are a million images. So a large database
 * is looked through only where the last process has not closed it, which leaves the log behind.
 */
static bool is_to_be_checked(const struct state *state)
{
	struct stat st;

	if (fstatat(state->dir_fd, "state.db-wal", &st, 0) == 0 && st.st_size > 0)
		return true;
	return fstatat(state->dir_fd, "state.db", &st, 0) == 0 && st.st_size < LARGE_BYTES;
}

/* The first line of quick_check is "ok" or says what is damaged. */
static int quick_check(sqlite3 *db, const char *path, struct diag *diag)
{
	sqlite3_stmt *statement;
	int code = sqlite3_prepare_v2(db, "PRAGMA quick_check(1)", -1, &statement, NULL);
	const char *text = "no answer";
	int r = 0;

	if (code != SQLITE_OK)
		return diag_set(diag, EBADMSG, "%s: damaged: %s", path, sqlite3_errmsg(db));
	code = sqlite3_step(statement);
	if (code == SQLITE_ROW)
		text = (const char *)sqlite3_column_text(statement, 0);
	else
		text = sqlite3_errmsg(db);
	if (!text || strcmp(text, "ok") != 0)
		r = diag_set(diag, EBADMSG, "%s: damaged: %s", path, text ? text : "?");
	(void)sqlite3_finalize(statement);
	return r;
}

static bool folder_is_empty(int dir_fd, const char *path)
{
	int fd = openat(dir_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_(closedirp) DIR *dir = NULL;
	const struct dirent *entry;

	if (fd < 0)
		return true;
	dir = fdopendir(fd);
	if (!dir) {
		(void)close(fd);
		return false;
	}
	while ((entry = readdir(dir)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			return false;
	return true;
}

/* One transaction: what the statements did, and that the schema is now this version. */
static int set_schema(struct state *state, const char *path, const char *statements, int version,
	struct diag *diag)
{
	char set_version[48];

	(void)snprintf(set_version, sizeof(set_version), "PRAGMA user_version = %d", version);
	if (sqlite3_exec(state->db, "BEGIN IMMEDIATE", NULL, NULL, NULL) == SQLITE_OK &&
		sqlite3_exec(state->db, statements, NULL, NULL, NULL) == SQLITE_OK &&
		sqlite3_exec(state->db, set_version, NULL, NULL, NULL) == SQLITE_OK &&
		sqlite3_exec(state->db, "COMMIT", NULL, NULL, NULL) == SQLITE_OK)
		return 0;
	return diag_set(diag, EIO, "%s: %s", path, sqlite3_errmsg(state->db));
}

static int make_schema(struct state *state, const char *path, struct diag *diag)
{
	/* A lost database must not make the sweep delete every mask and image. */
	if (!folder_is_empty(state->dir_fd, "sites"))
		return diag_set(diag, ENOTEMPTY,
			"%s: missing or empty, but %s/sites is not: restore it, or move sites away",
			path, state->dir);
	return set_schema(state, path, schema, STATE_SCHEMA, diag);
}

static int check_schema(struct state *state, const char *path, bool is_checked, struct diag *diag)
{
	int version = -1, n_tables = 0;
	int r;

	r = is_checked ? quick_check(state->db, path, diag) : 0;
	if (r < 0)
		return r;
	if (pragma_int(state->db, "PRAGMA user_version", &version) != SQLITE_OK ||
		pragma_int(state->db, "SELECT count(*) FROM sqlite_schema", &n_tables) != SQLITE_OK)
		return diag_set(diag, EBADMSG, "%s: %s", path, sqlite3_errmsg(state->db));
	if (version == 0 && n_tables == 0)
		return make_schema(state, path, diag);
	if (version < 1 || version > STATE_SCHEMA)
		return diag_set(diag, EPROTONOSUPPORT,
			"%s: schema version %d, this kamend reads 1 to %d", path, version,
			STATE_SCHEMA);
	for (; r == 0 && version < STATE_SCHEMA; version++)
		r = set_schema(state, path, upgrades[version - 1], version + 1, diag);
	return r;
}

static int open_database(struct state *state, struct diag *diag)
{
	static const char setup[] = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
				    "PRAGMA foreign_keys = ON; PRAGMA recursive_triggers = ON;";
	bool is_checked = is_to_be_checked(state); /* opening makes a new log */
	char path[300];
	int code;

	(void)snprintf(path, sizeof(path), "%s/state.db", state->dir);
	code = sqlite3_open_v2(path, &state->db,
		SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOFOLLOW, NULL);
	if (code != SQLITE_OK)
		return diag_set(diag, -statement_error(state, code), "%s: %s", path,
			state->db ? sqlite3_errmsg(state->db) : "out of memory");
	(void)sqlite3_busy_timeout(state->db, 200);
	code = sqlite3_exec(state->db, setup, NULL, NULL, NULL);
	if (code != SQLITE_OK)
		return diag_set(diag, -statement_error(state, code), "%s: %s", path,
			sqlite3_errmsg(state->db));
	return check_schema(state, path, is_checked, diag);
}

static int open_folder(struct state *state, const char *dir, struct diag *diag)
{
	char resolved[PATH_MAX];

	if (mkdir(dir, 0750) < 0 && errno != EEXIST)
		return diag_set(diag, errno, "%s: %s", dir, strerror(errno));
	if (!realpath(dir, resolved))
		return diag_set(diag, errno, "%s: %s", dir, strerror(errno));
	if (strlen(resolved) >= sizeof(state->dir))
		return diag_set(diag, ENAMETOOLONG, "%s: path is too long", dir);
	memcpy(state->dir, resolved, strlen(resolved) + 1);
	state->dir_fd = open(resolved, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (state->dir_fd < 0)
		return diag_set(diag, errno, "%s: %s", dir, strerror(errno));
	if (flock(state->dir_fd, LOCK_EX | LOCK_NB) < 0)
		return diag_set(diag, EBUSY, "%s: another kamend uses this state folder", dir);
	if (mkdirat(state->dir_fd, "sites", 0750) < 0 && errno != EEXIST)
		return diag_set(diag, errno, "%s/sites: %s", dir, strerror(errno));
	return 0;
}

int state_open(struct state **ret_state, const char *dir, const struct site_settings *defaults,
	struct diag *diag)
{
	_cleanup_(state_freep) struct state *state = calloc(1, sizeof(*state));
	int r;

	if (!state)
		return -ENOMEM;
	state->dir_fd = -1;
	state->defaults = *defaults;
	r = open_folder(state, dir, diag);
	if (r < 0)
		return r;
	r = open_database(state, diag);
	if (r < 0)
		return r;
	r = sweep_all(state, diag);
	if (r < 0)
		return r;
	*ret_state = TAKE_PTR(state);
	return 0;
}

void state_free(struct state *state)
{
	if (!state)
		return;
	if (state->db) {
		(void)state_commit(state);
		for (unsigned i = 0; i < SQL_N; i++)
			(void)sqlite3_finalize(state->statements[i]);
		(void)sqlite3_close(state->db);
	}
	state_image_done(state);
	closep(&state->dir_fd);
	free(state);
}

int state_path(const struct state *state, char ret_path[512], const char *site, const char *file)
{
	int n = snprintf(ret_path, 512, "%s/sites/%s/%s", state->dir, site, file);

	return n < 0 || n >= 512 ? -ENAMETOOLONG : 0;
}

int state_mask_path(
	const struct state *state, char ret_path[512], const char *site, const char *stem)
{
	char name[64];
	int r;

	(void)snprintf(name, sizeof(name), "%s.kcas", stem);
	r = state_path(state, ret_path, site, name);
	if (r < 0 || access(ret_path, F_OK) == 0)
		return r;
	(void)snprintf(name, sizeof(name), "%s.kmask", stem);
	return state_path(state, ret_path, site, name);
}
