/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "site/state_internal.h"

/* ---- features */

void features_done(struct features *features)
{
	free(features->names);
	free(features->rows);
	free(features->values);
	*features = (struct features){ 0 };
}

/* Room for as many as there can be, so that nothing grows on the way. */
static int make_room(struct features *features, uint32_t n_rows, uint32_t n_classes)
{
	features->names = calloc((size_t)n_classes + 1, sizeof(*features->names));
	features->rows = calloc((size_t)n_rows + 1, sizeof(*features->rows));
	features->values = calloc((size_t)n_rows * features->dim + 1, sizeof(*features->values));
	return features->names && features->rows && features->values ? 0 : -ENOMEM;
}

static int add_row(struct features *features, sqlite3_stmt *statement, int column, uint32_t class)
{
	struct feature_row *row = &features->rows[features->n];
	size_t n_bytes = features->dim * sizeof(float);
	int r;

	*row = (struct feature_row){ .image = sqlite3_column_int64(statement, column),
		.class = class };
	r = statement_text(statement, column + 1, row->blob, sizeof(row->blob));
	if (r < 0)
		return r;
	row->is_known = (size_t)sqlite3_column_bytes(statement, column + 2) == n_bytes;
	if (row->is_known)
		memcpy(features->values + (size_t)features->n * features->dim,
			sqlite3_column_blob(statement, column + 2), n_bytes);
	features->n++;
	return 0;
}

/* Of the classes in the order of their names. */
static int add_support(struct features *features, sqlite3_stmt *statement)
{
	char name[CLASSES_NAME_BYTES];
	int r = statement_text(statement, 0, name, sizeof(name));

	if (r < 0)
		return r;
	if (features->n_classes == 0 ||
		strcmp(features->names[features->n_classes - 1], name) != 0) {
		if (features->n_classes == CLASS_MAX)
			return -EBADMSG;
		memcpy(features->names[features->n_classes++], name, sizeof(name));
	}
	return add_row(features, statement, 1, features->n_classes - 1);
}

/* At most n_max: there is no room for more, whatever a damaged database may hold. */
static int read_supports(
	struct state *state, int64_t site, uint32_t n_max, struct features *features)
{
	sqlite3_stmt *statement;
	int r;

	r = statement_get(state, &statement, SQL_FEATURE_SUPPORTS, "ih", site, &features->space);
	while (r >= 0 && (r = statement_step(state, statement)) > 0) {
		r = features->n == n_max ? -EBADMSG : add_support(features, statement);
		if (r < 0)
			(void)sqlite3_reset(statement);
	}
	return r;
}

static int read_line(struct state *state, int64_t site, uint32_t n, struct features *features)
{
	sqlite3_stmt *statement;
	int r;

	r = statement_get(
		state, &statement, SQL_FEATURE_LINE, "ihi", site, &features->space, (int64_t)n);
	while (r >= 0 && (r = statement_step(state, statement)) > 0) {
		r = add_row(features, statement, 0, FEATURE_OF_LINE);
		if (r < 0)
			(void)sqlite3_reset(statement);
	}
	return r;
}

static int count_classes(struct state *state, int64_t site)
{
	sqlite3_stmt *statement;
	int r;

	r = statement_get(state, &statement, SQL_CLASS_COUNT, "i", site);
	if (r >= 0)
		r = statement_step(state, statement);
	if (r <= 0)
		return r;
	r = sqlite3_column_int(statement, 0);
	(void)sqlite3_reset(statement);
	return r;
}

/* wanted: a class more, with room for its supports behind the others. They are of the line as yet. */
static int read_features(struct state *state, int64_t site, const struct digest *space,
	uint32_t dim, uint32_t n_wanted, struct features *ret_features)
{
	_cleanup_(features_done) struct features features = { .space = *space, .dim = dim };
	int n_classes = count_classes(state, site);
	int r;

	if (dim == 0 || dim > FEATURE_MAX)
		return -EINVAL;
	if (n_classes < 0)
		return n_classes;
	r = make_room(&features,
		n_classes + n_wanted == 0
			? 0
			: (uint32_t)n_classes * CLASS_MAX_SUPPORTS + 2 * n_wanted + FEATURE_N_LINE,
		(uint32_t)n_classes + 1);
	if (r >= 0 && n_classes > 0)
		r = read_supports(state, site, (uint32_t)n_classes * CLASS_MAX_SUPPORTS, &features);
	if (r >= 0 && n_classes + n_wanted > 0)
		r = read_line(state, site, FEATURE_N_LINE + n_wanted, &features);
	if (r < 0)
		return r;
	*ret_features = features;
	features = (struct features){ 0 };
	return 0;
}

int state_features_read(struct state *state, const char *site, const struct digest *space,
	uint32_t dim, struct features *ret_features)
{
	int64_t id;
	int r = site_id(state, site, &id);

	return r < 0 ? r : read_features(state, id, space, dim, 0, ret_features);
}

static int put_new(struct state *state, int64_t site, const struct features *features)
{
	int r = 0;

	for (uint32_t i = 0; i < features->n && r >= 0; i++) {
		const struct statement_blob blob = { features->values + (size_t)i * features->dim,
			features->dim * sizeof(float) };

		if (features->rows[i].is_known && features->rows[i].is_new)
			r = statement_run(state, SQL_FEATURE_PUT, "iihb", features->rows[i].image,
				site, &features->space, &blob);
	}
	return r;
}

static int store(struct state *state, const char *site, const struct features *features)
{
	int64_t id;
	int r = site_id(state, site, &id);

	return r < 0 ? r : put_new(state, id, features);
}

int state_features_store(struct state *state, const char *site, const struct features *features)
{
	int r = state_begin(state);

	if (r < 0)
		return r;
	return state_end(state, store(state, site, features));
}

static int trim(
	struct state *state, const char *site, const struct digest *a, const struct digest *b)
{
	int64_t id;
	int r = site_id(state, site, &id);

	if (r >= 0)
		r = statement_run(state, SQL_FEATURE_TRIM_SPACES, "ihh", id, a, b);
	if (r >= 0)
		r = statement_run(state, SQL_FEATURE_TRIM_LINE, "ii", id, (int64_t)FEATURE_N_LINE);
	return r;
}

int state_features_trim(
	struct state *state, const char *site, const struct digest *a, const struct digest *b)
{
	int r = state_begin(state);

	if (r < 0)
		return r;
	return state_end(state, trim(state, site, a, b));
}

/* ---- classes */

int state_class_count(struct state *state, const char *site)
{
	int64_t id;
	int r = site_id(state, site, &id);

	return r < 0 ? r : count_classes(state, id);
}

int state_class_list(
	struct state *state, const char *site, struct class_row **ret_rows, uint32_t *ret_n)
{
	_cleanup_(freep) struct class_row *rows = NULL;
	sqlite3_stmt *statement;
	uint32_t n = 0;
	int64_t id;
	int r;

	r = site_id(state, site, &id);
	if (r < 0)
		return r;
	rows = calloc(CLASS_MAX, sizeof(*rows));
	if (!rows)
		return -ENOMEM;
	r = statement_get(state, &statement, SQL_CLASS_LIST, "i", id);
	while (r >= 0 && (r = statement_step(state, statement)) > 0) {
		r = n == CLASS_MAX
			    ? -EBADMSG
			    : statement_text(statement, 0, rows[n].name, sizeof(rows[n].name));
		if (r < 0) {
			(void)sqlite3_reset(statement);
			break;
		}
		rows[n].created_us = (uint64_t)sqlite3_column_int64(statement, 1);
		rows[n++].n_supports = (uint32_t)sqlite3_column_int64(statement, 2);
	}
	if (r < 0)
		return r;
	*ret_rows = TAKE_PTR(rows);
	*ret_n = n;
	return 0;
}

/* @return 1: there is one, 0: there is none, or an error */
static int find_class(struct state *state, int64_t site, const char *name, int64_t *ret_class)
{
	sqlite3_stmt *statement;
	int r;

	r = statement_get(state, &statement, SQL_CLASS_FIND, "it", site, name);
	if (r >= 0)
		r = statement_step(state, statement);
	if (r <= 0)
		return r;
	*ret_class = sqlite3_column_int64(statement, 0);
	(void)sqlite3_reset(statement);
	return 1;
}

/* One that is there, and supports no class yet. */
static int find_image(struct state *state, int64_t site, const struct class_wish *wish, uint32_t i,
	struct feature_row *ret_row, struct diag *diag)
{
	char name[CLASSES_NAME_BYTES];
	sqlite3_stmt *statement;
	int r;

	r = statement_get(state, &statement, SQL_IMAGE_FIND, "ih", site, &wish->hashes[i]);
	if (r >= 0)
		r = statement_step(state, statement);
	if (r <= 0)
		return r < 0 ? r : diag_set(diag, ENODATA, "image %u is not there", i);
	*ret_row = (struct feature_row){ .image = sqlite3_column_int64(statement, 0) };
	r = statement_text(statement, 1, ret_row->blob, sizeof(ret_row->blob));
	(void)sqlite3_reset(statement);
	if (r >= 0)
		r = statement_get(state, &statement, SQL_SUPPORT_CLASS, "i", ret_row->image);
	if (r >= 0)
		r = statement_step(state, statement);
	if (r <= 0)
		return r;
	r = statement_text(statement, 0, name, sizeof(name));
	(void)sqlite3_reset(statement);
	return r < 0 ? r : diag_set(diag, EEXIST, "image %u is one of class '%s'", i, name);
}

static int check_wish(
	struct state *state, int64_t site, const struct class_wish *wish, struct diag *diag)
{
	int64_t class;
	int r;

	if (wish->n == 0 || wish->n > CLASS_MAX_SUPPORTS)
		return diag_set(
			diag, E2BIG, "%u images: a class has 1 to %u", wish->n, CLASS_MAX_SUPPORTS);
	r = find_class(state, site, wish->name, &class);
	if (r != 0)
		return r < 0 ? r
			     : diag_set(diag, EEXIST, "there is a class '%s' already", wish->name);
	r = count_classes(state, site);
	if (r >= (int)CLASS_MAX)
		return diag_set(diag, E2BIG, "it has %u classes, and may have no more", CLASS_MAX);
	for (uint32_t i = 1; i < wish->n && r >= 0; i++)
		for (uint32_t k = 0; k < i; k++)
			if (digest_equal(&wish->hashes[i], &wish->hashes[k]))
				return diag_set(diag, EINVAL, "image %u is image %u", i, k);
	return r < 0 ? r : 0;
}

static bool is_among(const struct feature_row *rows, uint32_t n, int64_t image)
{
	for (uint32_t i = 0; i < n; i++)
		if (rows[i].image == image)
			return true;
	return false;
}

static void drop_row(struct features *features, uint32_t at)
{
	uint32_t n_behind = features->n - at - 1;
	float *values = features->values + (size_t)at * features->dim;

	memmove(features->rows + at, features->rows + at + 1, n_behind * sizeof(*features->rows));
	memmove(values, values + features->dim, (size_t)n_behind * features->dim * sizeof(*values));
	features->n--;
}

/* Of the line remains what it will be, once these are supports. */
static void leave_line(struct features *features, const struct feature_row *rows, uint32_t n)
{
	uint32_t n_line = 0;

	for (uint32_t i = features->n; i-- > 0;) {
		if (features->rows[i].class != FEATURE_OF_LINE)
			break;
		if (n_line == FEATURE_N_LINE || is_among(rows, n, features->rows[i].image))
			drop_row(features, i);
		else
			n_line++;
	}
}

static int plan(struct state *state, int64_t site, const struct class_wish *wish,
	struct features *features, struct diag *diag)
{
	struct feature_row rows[CLASS_MAX_SUPPORTS];
	int r = 0;

	for (uint32_t i = 0; i < wish->n && r >= 0; i++) {
		r = find_image(state, site, wish, i, &rows[i], diag);
		rows[i].class = features->n_classes;
	}
	if (r < 0)
		return r;
	leave_line(features, rows, wish->n);
	memcpy(features->rows + features->n, rows, wish->n * sizeof(*rows));
	features->n += wish->n;
	(void)snprintf(
		features->names[features->n_classes++], sizeof(*features->names), "%s", wish->name);
	return 0;
}

int state_class_plan(struct state *state, const char *site, const struct class_wish *wish,
	const struct digest *space, uint32_t dim, struct features *ret_features, struct diag *diag)
{
	_cleanup_(features_done) struct features features = { 0 };
	int64_t id;
	int r;

	r = site_id_changeable(state, site, &id);
	if (r == -EROFS)
		return diag_set(diag, EROFS, "it is frozen: resume it first");
	if (r >= 0)
		r = check_wish(state, id, wish, diag);
	if (r >= 0)
		r = read_features(state, id, space, dim, wish->n, &features);
	if (r >= 0)
		r = plan(state, id, wish, &features, diag);
	if (r < 0)
		return r;
	*ret_features = features;
	features = (struct features){ 0 };
	return 0;
}

static int add(
	struct state *state, const char *site, const struct class_wish *wish, struct diag *diag)
{
	struct feature_row row;
	int64_t id, class;
	char detail[256];
	int r;

	r = site_id_changeable(state, site, &id);
	if (r == -EROFS)
		return diag_set(diag, EROFS, "it is frozen: resume it first");
	if (r >= 0)
		r = check_wish(state, id, wish, diag);
	if (r >= 0)
		r = statement_run(
			state, SQL_CLASS_ADD, "iti", id, wish->name, (int64_t)clock_wall_us());
	class = sqlite3_last_insert_rowid(state->db);
	for (uint32_t i = 0; i < wish->n && r >= 0; i++) {
		r = find_image(state, id, wish, i, &row, diag);
		if (r >= 0)
			r = statement_run(state, SQL_SUPPORT_ADD, "iii", row.image, class,
				(int64_t)wish->is_brought[i]);
	}
	if (r < 0)
		return r;
	(void)snprintf(detail, sizeof(detail), "'%s' of %u images by %.100s", wish->name, wish->n,
		wish->who);
	return audit_add(state, site, "class.add", detail);
}

int state_class_add(
	struct state *state, const char *site, const struct class_wish *wish, struct diag *diag)
{
	int r = state_begin(state);

	if (r < 0)
		return r;
	return state_end(state, add(state, site, wish, diag));
}

/* ---- removal */

/* Images that go, and their files, which go after the commit. */
struct leaving {
	int64_t ids[CLASS_MAX_SUPPORTS];
	char blobs[CLASS_MAX_SUPPORTS][128];
	uint32_t n;
};

static int leave(struct leaving *leaving, sqlite3_stmt *statement)
{
	int r;

	if (leaving->n == CLASS_MAX_SUPPORTS)
		return -EBADMSG;
	r = statement_text(statement, 1, leaving->blobs[leaving->n], sizeof(*leaving->blobs));
	if (r >= 0)
		leaving->ids[leaving->n++] = sqlite3_column_int64(statement, 0);
	return r;
}

static int read_brought(struct state *state, int64_t class, struct leaving *leaving)
{
	sqlite3_stmt *statement;
	int r;

	r = statement_get(state, &statement, SQL_SUPPORT_BROUGHT, "i", class);
	while (r >= 0 && (r = statement_step(state, statement)) > 0) {
		r = leave(leaving, statement);
		if (r < 0)
			(void)sqlite3_reset(statement);
	}
	return r;
}

static void delete_blobs(struct state *state, const char *site, const struct leaving *leaving)
{
	_cleanup_(closep) int fd = sweep_open_folder(state, site, "replay");

	for (uint32_t i = 0; fd >= 0 && i < leaving->n; i++)
		(void)unlinkat(fd, leaving->blobs[i], 0);
}

static int remove_class(struct state *state, const char *site, const char *name, const char *who,
	struct leaving *leaving)
{
	int64_t id, class;
	char detail[256];
	int r;

	r = site_id_changeable(state, site, &id);
	if (r >= 0)
		r = find_class(state, id, name, &class);
	if (r <= 0)
		return r < 0 ? r : -ENODATA;
	r = read_brought(state, class, leaving);
	for (uint32_t i = 0; i < leaving->n && r >= 0; i++)
		r = statement_run(state, SQL_IMAGE_DELETE, "i", leaving->ids[i]);
	if (r >= 0)
		r = statement_run(state, SQL_CLASS_DELETE, "i", class);
	if (r < 0)
		return r;
	(void)snprintf(detail, sizeof(detail), "'%s' by %.100s", name, who);
	return audit_add(state, site, "class.remove", detail);
}

int state_class_remove(struct state *state, const char *site, const char *name, const char *who)
{
	struct leaving leaving = { .n = 0 };
	int r = state_begin(state);

	if (r < 0)
		return r;
	r = state_end(state, remove_class(state, site, name, who, &leaving));
	if (r >= 0)
		delete_blobs(state, site, &leaving);
	return r < 0 ? r : 0;
}

static int drop_images(struct state *state, const char *site, const struct digest *hashes,
	uint32_t n, struct leaving *leaving)
{
	sqlite3_stmt *statement;
	int64_t id;
	int r = site_id_changeable(state, site, &id);

	for (uint32_t i = 0; i < n && r >= 0; i++) {
		r = statement_get(state, &statement, SQL_IMAGE_SPARE, "ih", id, &hashes[i]);
		if (r >= 0)
			r = statement_step(state, statement);
		if (r <= 0)
			continue;
		r = leave(leaving, statement);
		(void)sqlite3_reset(statement);
		/* At once: it may be named twice. */
		if (r >= 0)
			r = statement_run(
				state, SQL_IMAGE_DELETE, "i", leaving->ids[leaving->n - 1]);
	}
	return r;
}

int state_class_drop(struct state *state, const char *site, const struct digest *hashes, uint32_t n,
	uint32_t *ret_n_dropped)
{
	struct leaving leaving = { .n = 0 };
	int r = state_begin(state);

	if (r < 0)
		return r;
	r = state_end(state, drop_images(state, site, hashes, n, &leaving));
	if (r < 0)
		return r;
	delete_blobs(state, site, &leaving);
	*ret_n_dropped = leaving.n;
	return 0;
}
