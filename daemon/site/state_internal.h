/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SITE_STATE_INTERNAL_H
#define KAMEN_SITE_STATE_INTERNAL_H

#include <sqlite3.h>
#include <sys/queue.h>

#include "site/state.h"

#define STATE_SCHEMA 12

/* Every statement is prepared once, at its first use; statement.c holds the texts. */
enum statement {
	SQL_BEGIN,
	SQL_COMMIT,
	SQL_ROLLBACK,
	SQL_AUDIT_HEAD,
	SQL_AUDIT_ADD,
	SQL_AUDIT_ALL,
	SQL_AUDIT_SEEK,
	SQL_AUDIT_FROM,
	SQL_AUDIT_SEEK_SITE,
	SQL_AUDIT_FROM_SITE,
	SQL_SITE_ID,
	SQL_SITE_ADD,
	SQL_SITE_DELETE,
	SQL_SITE_GET,
	SQL_SITE_NAMES,
	SQL_SITE_PIN,
	SQL_SITE_UNPIN_IDLE,
	SQL_SITE_HOLD_IMAGES,
	SQL_SITE_COUNT,
	SQL_SITE_HOLD,
	SQL_SITE_SET_HOLD,
	SQL_SITE_NEEDS,
	SQL_SITE_BEGUN,
	SQL_SETTING_ADD,
	SQL_SETTINGS,
	SQL_IMAGE_ADD,
	SQL_IMAGE_DELETE,
	SQL_IMAGE_FIND,
	SQL_IMAGE_NEWEST_FIRST,
	SQL_IMAGE_OLDEST_FIRST,
	SQL_IMAGE_BLOBS,
	SQL_HARDNESS_FORGET,
	SQL_HARDNESS_PUT,
	SQL_HARDEST,
	SQL_LABEL_GET,
	SQL_LABEL_PUT,
	SQL_LABEL_DELETE,
	SQL_LABEL_CLASSES,
	SQL_LABEL_COUNT,
	SQL_CLASS_ADD,
	SQL_CLASS_FIND,
	SQL_CLASS_COUNT,
	SQL_CLASS_DELETE,
	SQL_CLASS_LIST,
	SQL_SUPPORT_ADD,
	SQL_SUPPORT_CLASS,
	SQL_SUPPORT_BROUGHT,
	SQL_IMAGE_SPARE,
	SQL_SUPPORT_OF_LINE,
	SQL_FEATURE_PUT,
	SQL_FEATURE_SUPPORTS,
	SQL_FEATURE_LINE,
	SQL_FEATURE_TRIM_SPACES,
	SQL_FEATURE_TRIM_LINE,
	SQL_VERSION_NEXT,
	SQL_VERSION_ADD,
	SQL_VERSION_STATE,
	SQL_VERSION_FAIL,
	SQL_VERSION_KEEP,
	SQL_VERSION_DELETE,
	SQL_VERSION_STORE,
	SQL_VERSION_GET,
	SQL_VERSION_LIST,
	SQL_VERSION_RUNNING,
	SQL_VERSION_RUNNING_ALL,
	SQL_PROMOTION_ADD,
	SQL_PROMOTION_POP,
	SQL_PROMOTION_TOP,
	SQL_FIGURE_PUT,
	SQL_FIGURES,
	SQL_WITHDRAW,
	SQL_WITHDRAWN,
	SQL_WITHDRAWN_MASK,
	SQL_PROMOTION_FORGET,
	SQL_PROMOTION_JOIN,
	SQL_LIVE_PUT,
	SQL_LIVE,
	SQL_N,
};

/** A store that is over its bound for a round's sake: nothing to evict below until_bytes. */
struct evict_rest {
	SLIST_ENTRY(evict_rest) next;
	int64_t site_id, pinned;
	uint64_t max_bytes, until_bytes;
};

struct state {
	sqlite3 *db;
	sqlite3_stmt *statements[SQL_N];
	struct site_settings defaults;
	char dir[256];   /* absolute */
	int dir_fd;      /* locked: one kamend per state folder */
	bool batch_open; /* something waits for state_commit() */
	SLIST_HEAD(, evict_rest) rests;
	int batch_error; /* the open batch is lost already: state_commit() has to say so */
	/* Batches leave the sync to state_disk.h; what SQLite was told last. */
	bool is_deferred, is_relaxed;
};

/* ---- statement.c */

/** What SQLite said last, as a negative errno. */
int statement_error(const struct state *state, int code);
/**
 * Binds and hands out a statement that is ready to be stepped; it stays the state's. format: a
 * letter a parameter: i (int64_t), d (double), t (text), h (const struct digest *), b (const struct
 * statement_blob *).
 */
struct statement_blob {
	const void *data;
	size_t n_bytes;
};
int statement_get(struct state *state, sqlite3_stmt **ret_statement, enum statement which,
	const char *format, ...);
/** Steps a statement that gives no rows to its end. */
int statement_run(struct state *state, enum statement which, const char *format, ...);
/** @return 1: a row, 0: the end, or a negative errno; resets unless there is a row */
int statement_step(struct state *state, sqlite3_stmt *statement);
/** Copies a text column; what is longer than the buffer is -EBADMSG. */
int statement_text(sqlite3_stmt *statement, int column, char *ret_text, size_t n_bytes);
int statement_digest(sqlite3_stmt *statement, int column, struct digest *ret_digest);

/* ---- transactions: state.c. An open batch is committed before another transaction begins. */
int state_begin(struct state *state);
/** Outside of any: whether commits wait for the disk from now on. */
int state_relax(struct state *state, bool is_relaxed);
/** Commits where r >= 0, else rolls back. @return r, or what the commit said */
int state_end(struct state *state, int r);
/** What follows is of the open batch, or of one that is opened; nobody waits for its disk. */
int state_batch_join(struct state *state);
/** r: what came of it. @return r */
int state_batch_leave(struct state *state, int r);
/** The open batch, if any, is lost: remembered until state_commit(). */
void state_batch_fail(struct state *state, int r);

/* ---- state_image.c */

/** Of a site that goes; its id may be another's next. */
void state_image_forget(struct state *state, int64_t site_id);
void state_image_done(struct state *state);

/* ---- inside a transaction */
int audit_add(struct state *state, const char *site, const char *what, const char *detail);
int site_id(struct state *state, const char *site, int64_t *ret_id); /* -ENOENT */
int site_hold(struct state *state, int64_t id, enum site_hold *ret_hold);
/** Of a site that may change. -ENOENT, -EROFS: it is frozen. */
int site_id_changeable(struct state *state, const char *site, int64_t *ret_id);
int site_hold_parse(enum site_hold *ret_hold, const char *name);
/** Puts a version, 0: the base, on top of the site's promotions; what, detail: the audit row. */
int champion_set(struct state *state, const char *site, int64_t id, uint32_t version,
	const char *what, const char *who);
/** Champion and predecessor. @return how many promotions there are below the champion, at most 2 */
int promotion_top(
	struct state *state, int64_t id, uint32_t *ret_champion, uint32_t *ret_predecessor);
int version_set_state(
	struct state *state, int64_t id, uint32_t version, enum version_state version_state);
int version_read(struct version_row *ret_row, sqlite3_stmt *statement);
int version_collect(struct state *state, sqlite3_stmt *statement, struct version_row **ret_rows,
	uint32_t *ret_n);

/* ---- state_live.c */

/** Inside a transaction: the version that a promotion puts on trial, 0: none is any more. */
int live_put_trial(struct state *state, int64_t id, uint32_t version);

/* ---- state_figure.c */

/** A number of a struct, stored by name; counts are exact up to 2^53. */
struct figure_field {
	const char *name;
	size_t offset;
	enum { FIGURE_DOUBLE, FIGURE_U32, FIGURE_U64, FIGURE_BOOL } kind;
};
double figure_get(const void *row, const struct figure_field *field);
void figure_set(void *row, const struct figure_field *field, double value);

/** Inside a transaction: what the gate measured beside the columns of the version. */
/* hardness_bytes: of the file that comes with it, 0: none does. */
int figures_put(
	struct state *state, int64_t id, const struct version_row *row, uint64_t hardness_bytes);
/** Fills what lies in tables of its own. */
int figures_read(struct state *state, struct version_row *row);
/** Inside a transaction. */
int champion_pop(struct state *state, const char *site, int64_t id, const char *what,
	const char *who, uint32_t *ret_version);

/* ---- sweep.c */

/** Removes a folder and what is in it; what is not there is no error. Depth at most 4. */
int sweep_tree(int dir_fd, const char *path);
/** Renames a site's folder to what no site is called; state_tidy() removes it. */
int sweep_throw_away(struct state *state, const char *site);
/** Removes what has no row, at open. */
int sweep_all(struct state *state, struct diag *diag);
/** mkdir -p of a site's folders. */
int sweep_make_folders(struct state *state, const char *site);
/** Opens a folder of a site, e.g. "replay". @return descriptor or a negative errno */
int sweep_open_folder(const struct state *state, const char *site, const char *folder);

#endif
