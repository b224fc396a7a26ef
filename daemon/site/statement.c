/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "site/state_internal.h"

#define VERSION_COLUMNS \
	"site.name, version, state, density, lowest_density, loss_ratio, seconds, n_bytes, " \
	"n_elements, n_flips, seed, version.created_us, steps, version.n_images, threads, isa, " \
	"base, prep, mask, manifest, recipe, space, frozen_n, frozen_retrieval, frozen_margin, " \
	"frozen_rank, candidate_n, candidate_retrieval, candidate_margin, candidate_rank, " \
	"passed, reasons, retrieval_error, margin_error, kept_step, keep, why, recipe_text, " \
	"prep_text, objective, drifted " \
	"FROM version JOIN site ON site.id = site_id "

static const char *const texts[SQL_N] = {
	[SQL_BEGIN] = "BEGIN IMMEDIATE",
	[SQL_COMMIT] = "COMMIT",
	[SQL_ROLLBACK] = "ROLLBACK",
	[SQL_AUDIT_HEAD] = "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1",
	[SQL_AUDIT_ADD] = "INSERT INTO audit (seq, time_us, site, what, detail, prev, hash) "
			  "VALUES (?, ?, ?, ?, ?, ?, ?)",
	[SQL_AUDIT_ALL] = "SELECT seq, time_us, site, what, detail, prev, hash FROM audit "
			  "ORDER BY seq",
	/* Of each two: one for all sites, one that goes by the index. */
	[SQL_AUDIT_SEEK] = "SELECT seq FROM audit ORDER BY seq DESC LIMIT 1 OFFSET ?1",
	[SQL_AUDIT_FROM] = "SELECT seq, time_us, site, what, detail, prev, hash FROM audit "
			   "WHERE seq > ?1 ORDER BY seq LIMIT ?2",
	[SQL_AUDIT_SEEK_SITE] = "SELECT seq FROM audit WHERE site = ?2 "
				"ORDER BY seq DESC LIMIT 1 OFFSET ?1",
	[SQL_AUDIT_FROM_SITE] = "SELECT seq, time_us, site, what, detail, prev, hash FROM audit "
				"WHERE seq > ?1 AND site = ?3 ORDER BY seq LIMIT ?2",
	[SQL_SITE_ID] = "SELECT id FROM site WHERE name = ?",
	[SQL_SITE_ADD] = "INSERT INTO site (name, created_us, round_us) VALUES (?1, ?2, ?2)",
	[SQL_SITE_DELETE] = "DELETE FROM site WHERE id = ?",
	[SQL_SITE_GET] = "SELECT id, n_images, n_duplicates, n_rejected, n_gaps, replay_bytes, "
			 "max(pinned, held), n_new, round_us, hold FROM site WHERE name = ?",
	[SQL_SITE_NAMES] = "SELECT name FROM site ORDER BY name",
	[SQL_SITE_PIN] = "UPDATE site SET pinned = ? WHERE id = ?",
	/* At the start: nothing is learnt again over a restart. */
	[SQL_SITE_UNPIN_IDLE] =
		"UPDATE site SET held = 0, pinned = CASE WHEN EXISTS (SELECT 1 FROM version "
		"WHERE site_id = site.id AND state = 'learning') THEN pinned ELSE 0 END "
		"WHERE pinned > 0 OR held > 0",
	[SQL_SITE_HOLD_IMAGES] = "UPDATE site SET held = ? WHERE id = ?",
	[SQL_SITE_HOLD] = "SELECT hold FROM site WHERE id = ?",
	[SQL_SITE_SET_HOLD] = "UPDATE site SET hold = ? WHERE id = ?",
	[SQL_SITE_NEEDS] = "SELECT name, hold, n_images, n_new, round_us FROM site ORDER BY name",
	[SQL_SITE_BEGUN] = "UPDATE site SET n_new = 0, round_us = ? WHERE id = ?",
	[SQL_SITE_COUNT] = "UPDATE site SET n_duplicates = n_duplicates + ?, "
			   "n_rejected = n_rejected + ?, n_gaps = n_gaps + ? WHERE id = ?",
	[SQL_SETTING_ADD] = "INSERT INTO setting (site_id, key, value) VALUES (?, ?, ?)",
	[SQL_SETTINGS] = "SELECT key, value FROM setting WHERE site_id = ? ORDER BY key",
	[SQL_IMAGE_ADD] = "INSERT INTO image (site_id, hash, blob, n_bytes, width, height, "
			  "n_channels, source, "
			  "sender, part_id, capture_us, arrived_us) VALUES (?, ?, ?, ?, ?, ?, ?, "
			  "?, ?, ?, ?, ?) "
			  "ON CONFLICT (site_id, hash) DO NOTHING",
	[SQL_IMAGE_DELETE] = "DELETE FROM image WHERE id = ?",
	[SQL_IMAGE_FIND] = "SELECT id, blob FROM image WHERE site_id = ? AND hash = ?",
	[SQL_IMAGE_NEWEST_FIRST] = "SELECT id, hash, blob, n_bytes, label.image_id IS NOT NULL, "
				   "hardness, support.image_id IS NOT NULL FROM image LEFT JOIN "
				   "label ON label.image_id = id "
				   "LEFT JOIN support ON support.image_id = id "
				   "WHERE image.site_id = ? ORDER BY id DESC",
	[SQL_IMAGE_OLDEST_FIRST] =
		"SELECT id, hash, blob, n_bytes, class FROM image "
		"LEFT JOIN label ON label.image_id = id LEFT JOIN support ON "
		"support.image_id = id AND support.brought WHERE image.site_id = ? "
		"AND (support.image_id IS NULL OR class IS NOT NULL) ORDER BY id",
	[SQL_IMAGE_BLOBS] =
		"SELECT id, hash, blob, n_bytes FROM image WHERE site_id = ? ORDER BY blob",
	[SQL_HARDNESS_FORGET] =
		"UPDATE image SET hardness = NULL WHERE id IN (SELECT id FROM image "
		"WHERE site_id = ? AND hardness IS NOT NULL LIMIT ?)",
	[SQL_HARDNESS_PUT] = "UPDATE image SET hardness = ? WHERE site_id = ? AND hash = ?",
	[SQL_HARDEST] = "SELECT hash, hardness, source, sender, part_id, capture_us, arrived_us, "
			"class FROM image LEFT JOIN label ON image_id = id WHERE image.site_id = ? "
			"AND hardness IS NOT NULL ORDER BY hardness DESC, id DESC LIMIT ?",
	[SQL_LABEL_GET] = "SELECT class FROM label WHERE image_id = ?",
	[SQL_LABEL_PUT] = "INSERT OR REPLACE INTO label (image_id, site_id, class, time_us) "
			  "VALUES (?, ?, ?, ?)",
	[SQL_LABEL_DELETE] = "DELETE FROM label WHERE image_id = ?",
	[SQL_LABEL_CLASSES] = "SELECT class, count(*) FROM label WHERE site_id = ? "
			      "GROUP BY class ORDER BY class",
	[SQL_LABEL_COUNT] = "SELECT count(DISTINCT class) FROM label WHERE site_id = ?",
	[SQL_CLASS_ADD] = "INSERT INTO class (site_id, name, created_us) VALUES (?, ?, ?)",
	[SQL_CLASS_FIND] = "SELECT id FROM class WHERE site_id = ? AND name = ?",
	[SQL_CLASS_COUNT] = "SELECT count(*) FROM class WHERE site_id = ?",
	[SQL_CLASS_DELETE] = "DELETE FROM class WHERE id = ?",
	[SQL_CLASS_LIST] = "SELECT name, created_us, count(image_id) FROM class "
			   "LEFT JOIN support ON class_id = class.id WHERE site_id = ? "
			   "GROUP BY class.id ORDER BY name",
	[SQL_SUPPORT_ADD] = "INSERT INTO support (image_id, class_id, brought) VALUES (?, ?, ?)",
	[SQL_SUPPORT_CLASS] = "SELECT name FROM support JOIN class ON class.id = class_id "
			      "WHERE image_id = ?",
	[SQL_SUPPORT_BROUGHT] =
		"SELECT image.id, blob FROM support JOIN image ON image.id = support.image_id "
		"LEFT JOIN label ON label.image_id = image.id "
		"WHERE class_id = ? AND brought AND class IS NULL",
	[SQL_IMAGE_SPARE] = "SELECT id, blob FROM image WHERE site_id = ?1 AND hash = ?2 "
			    "AND NOT EXISTS (SELECT 1 FROM support WHERE image_id = id) "
			    "AND NOT EXISTS (SELECT 1 FROM label WHERE image_id = id) "
			    "AND id > (SELECT max(pinned, held) FROM site WHERE site.id = ?1)",
	[SQL_SUPPORT_OF_LINE] = "UPDATE support SET brought = 0 WHERE brought AND image_id = "
				"(SELECT id FROM image WHERE site_id = ? AND hash = ?)",
	/* An image that is gone by now needs none. */
	[SQL_FEATURE_PUT] = "INSERT OR REPLACE INTO feature (image_id, site_id, space, data) "
			    "SELECT id, site_id, ?3, ?4 FROM image WHERE id = ?1 AND site_id = ?2",
	[SQL_FEATURE_SUPPORTS] =
		"SELECT name, image.id, blob, data FROM class JOIN support ON class_id = class.id "
		"JOIN image ON image.id = support.image_id LEFT JOIN feature ON "
		"feature.image_id = image.id AND space = ?2 WHERE class.site_id = ?1 "
		"ORDER BY name, image.id",
	[SQL_FEATURE_LINE] =
		"SELECT id, blob, data FROM (SELECT id, blob FROM image WHERE site_id = ?1 AND "
		"NOT EXISTS (SELECT 1 FROM support WHERE image_id = id) "
		"ORDER BY id DESC LIMIT ?3) LEFT JOIN feature ON image_id = id AND space = ?2 "
		"ORDER BY id",
	[SQL_FEATURE_TRIM_SPACES] = "DELETE FROM feature WHERE site_id = ?1 "
				    "AND space <> ?2 AND space <> ?3",
	[SQL_FEATURE_TRIM_LINE] =
		"DELETE FROM feature WHERE site_id = ?1 "
		"AND image_id NOT IN (SELECT image_id FROM support) AND image_id NOT IN "
		"(SELECT id FROM image WHERE site_id = ?1 AND "
		"NOT EXISTS (SELECT 1 FROM support WHERE image_id = id) "
		"ORDER BY id DESC LIMIT ?2)",
	[SQL_VERSION_NEXT] = "UPDATE site SET last_version = last_version + 1 WHERE id = ? "
			     "RETURNING last_version",
	[SQL_VERSION_ADD] = "INSERT INTO version (site_id, version, state, steps, seed, n_images, "
			    "manifest, created_us, why, objective, drifted) "
			    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
	[SQL_VERSION_STATE] = "UPDATE version SET state = ? WHERE site_id = ? AND version = ?",
	[SQL_VERSION_FAIL] = "UPDATE version SET state = 'failed', reasons = ? "
			     "WHERE site_id = ? AND version = ? AND state = 'learning'",
	[SQL_VERSION_KEEP] = "UPDATE version SET keep = ? WHERE site_id = ? AND version = ?",
	[SQL_VERSION_DELETE] = "DELETE FROM version WHERE site_id = ? AND version = ?",
	[SQL_VERSION_STORE] =
		"UPDATE version SET state = ?, density = ?, lowest_density = ?, loss_ratio = ?, "
		"seconds = ?, n_bytes = ?, n_elements = ?, n_flips = ?, seed = ?, steps = ?, "
		"n_images = ?, threads = ?, isa = ?, base = ?, prep = ?, mask = ?, manifest = ?, "
		"recipe = ?, space = ?, frozen_n = ?, frozen_retrieval = ?, frozen_margin = ?, "
		"frozen_rank = ?, candidate_n = ?, candidate_retrieval = ?, candidate_margin = ?, "
		"candidate_rank = ?, passed = ?, reasons = ?, retrieval_error = ?, "
		"margin_error = ?, kept_step = ?, recipe_text = ?, prep_text = ? "
		"WHERE site_id = ? AND version = ?",
	[SQL_VERSION_GET] = "SELECT " VERSION_COLUMNS "WHERE site_id = ? AND version = ?",
	[SQL_VERSION_LIST] = "SELECT " VERSION_COLUMNS "WHERE site_id = ? ORDER BY version",
	[SQL_VERSION_RUNNING] = "SELECT version FROM version WHERE site_id = ? AND "
				"state = 'learning'",
	[SQL_VERSION_RUNNING_ALL] =
		"SELECT " VERSION_COLUMNS "WHERE state = 'learning' ORDER BY site.name, version",
	[SQL_PROMOTION_ADD] = "INSERT INTO promotion (site_id, version, time_us) VALUES (?, ?, ?)",
	[SQL_PROMOTION_POP] = "DELETE FROM promotion WHERE id = "
			      "(SELECT max(id) FROM promotion WHERE site_id = ?)",
	[SQL_PROMOTION_TOP] =
		"SELECT version FROM promotion WHERE site_id = ? ORDER BY id DESC LIMIT 2",
	[SQL_FIGURE_PUT] = "INSERT OR REPLACE INTO figure (site_id, version, name, value) "
			   "VALUES (?, ?, ?, ?)",
	[SQL_FIGURES] = "SELECT name, value FROM figure WHERE site_id = ? AND version = ?",
	[SQL_WITHDRAW] = "INSERT OR REPLACE INTO withdrawal (site_id, version, mask, reason) "
			 "VALUES (?, ?, ?, ?)",
	[SQL_WITHDRAWN] = "SELECT reason FROM withdrawal WHERE site_id = ? AND version = ?",
	[SQL_WITHDRAWN_MASK] = "SELECT 1 FROM withdrawal WHERE site_id = ? AND mask = ? LIMIT 1",
	[SQL_PROMOTION_FORGET] = "DELETE FROM promotion WHERE site_id = ? AND version = ?",
	[SQL_LIVE_PUT] = "INSERT OR REPLACE INTO live (site_id, name, value) VALUES (?, ?, ?)",
	[SQL_LIVE] = "SELECT name, value FROM live WHERE site_id = ?",
	/* What lay around a version that is gone: the same version twice is one. */
	[SQL_PROMOTION_JOIN] = "DELETE FROM promotion WHERE site_id = ?1 AND version = "
			       "(SELECT below.version FROM promotion AS below WHERE "
			       "below.site_id = ?1 AND below.id < promotion.id "
			       "ORDER BY below.id DESC LIMIT 1)",
};

int statement_error(const struct state *state, int code)
{
	(void)state;
	switch (code & 0xff) {
	case SQLITE_OK:
	case SQLITE_ROW:
	case SQLITE_DONE:
		return 0;
	case SQLITE_CONSTRAINT:
		return -EEXIST;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return -EBUSY;
	case SQLITE_FULL:
		return -ENOSPC;
	case SQLITE_NOMEM:
		return -ENOMEM;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return -EBADMSG;
	case SQLITE_READONLY:
		return -EROFS;
	case SQLITE_TOOBIG:
		return -EFBIG;
	default:
		return -EIO;
	}
}

static int bind_one(sqlite3_stmt *statement, int at, char letter, va_list *values)
{
	const struct statement_blob *blob;
	const struct digest *digest;

	switch (letter) {
	case 'b':
		blob = va_arg(*values, const struct statement_blob *);
		return sqlite3_bind_blob64(
			statement, at, blob->data, blob->n_bytes, SQLITE_TRANSIENT);
	case 'i':
		return sqlite3_bind_int64(statement, at, va_arg(*values, int64_t));
	case 'd':
		return sqlite3_bind_double(statement, at, va_arg(*values, double));
	case 't':
		/* The caller's text outlives the step, not always the statement. */
		return sqlite3_bind_text(
			statement, at, va_arg(*values, const char *), -1, SQLITE_TRANSIENT);
	case 'h':
		digest = va_arg(*values, const struct digest *);
		return sqlite3_bind_blob(
			statement, at, digest->bytes, DIGEST_BYTES, SQLITE_TRANSIENT);
	default:
		return SQLITE_MISUSE;
	}
}

static int get(struct state *state, sqlite3_stmt **ret_statement, enum statement which,
	const char *format, va_list *values)
{
	sqlite3_stmt *statement = state->statements[which];
	int code;

	if (!statement) {
		code = sqlite3_prepare_v3(state->db, texts[which], -1, SQLITE_PREPARE_PERSISTENT,
			&state->statements[which], NULL);
		if (code != SQLITE_OK)
			return statement_error(state, code);
		statement = state->statements[which];
	}
	(void)sqlite3_reset(statement);
	(void)sqlite3_clear_bindings(statement);
	for (int i = 0; format[i]; i++) {
		code = bind_one(statement, i + 1, format[i], values);
		if (code != SQLITE_OK)
			return statement_error(state, code);
	}
	*ret_statement = statement;
	return 0;
}

int statement_get(struct state *state, sqlite3_stmt **ret_statement, enum statement which,
	const char *format, ...)
{
	va_list values;
	int r;

	va_start(values, format);
	r = get(state, ret_statement, which, format, &values);
	va_end(values);
	return r;
}

int statement_run(struct state *state, enum statement which, const char *format, ...)
{
	sqlite3_stmt *statement;
	va_list values;
	int r;

	va_start(values, format);
	r = get(state, &statement, which, format, &values);
	va_end(values);
	if (r < 0)
		return r;
	r = statement_error(state, sqlite3_step(statement));
	(void)sqlite3_reset(statement);
	return r;
}

int statement_step(struct state *state, sqlite3_stmt *statement)
{
	int code = sqlite3_step(statement);

	if (code == SQLITE_ROW)
		return 1;
	(void)sqlite3_reset(statement);
	return statement_error(state, code);
}

int statement_text(sqlite3_stmt *statement, int column, char *ret_text, size_t n_bytes)
{
	const unsigned char *text = sqlite3_column_text(statement, column);
	size_t n = text ? strlen((const char *)text) : 0;

	if (n >= n_bytes)
		return -EBADMSG;
	if (n > 0)
		memcpy(ret_text, text, n);
	ret_text[n] = 0;
	return 0;
}

int statement_digest(sqlite3_stmt *statement, int column, struct digest *ret_digest)
{
	const void *blob = sqlite3_column_blob(statement, column);

	if (!blob) {
		*ret_digest = (struct digest){ 0 };
		return 0;
	}
	if (sqlite3_column_bytes(statement, column) != DIGEST_BYTES)
		return -EBADMSG;
	memcpy(ret_digest->bytes, blob, DIGEST_BYTES);
	return 0;
}
