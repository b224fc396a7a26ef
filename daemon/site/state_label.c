/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "site/state_internal.h"

/* @return 1: the site has the image, 0: it has not, or an error */
static int find_image(
	struct state *state, int64_t site, const struct digest *hash, int64_t *ret_image)
{
	sqlite3_stmt *statement;
	int r;

	r = statement_get(state, &statement, SQL_IMAGE_FIND, "ih", site, hash);
	if (r >= 0)
		r = statement_step(state, statement);
	if (r <= 0)
		return r;
	*ret_image = sqlite3_column_int64(statement, 0);
	(void)sqlite3_reset(statement);
	return 1;
}

/* "": it has none. */
static int read_class(struct state *state, int64_t image, char *ret_name, size_t n_bytes)
{
	sqlite3_stmt *statement;
	int r;

	ret_name[0] = 0;
	r = statement_get(state, &statement, SQL_LABEL_GET, "i", image);
	if (r >= 0)
		r = statement_step(state, statement);
	if (r <= 0)
		return r;
	r = statement_text(statement, 0, ret_name, n_bytes);
	(void)sqlite3_reset(statement);
	return r;
}

static int change(struct state *state, int64_t site, int64_t image, const char *name,
	struct label_counts *counts)
{
	char present[sizeof(((struct label_class *)NULL)->name)];
	int r = read_class(state, image, present, sizeof(present));

	if (r < 0 || strcmp(present, name ? name : "") == 0)
		return r;
	if (!name) {
		counts->n_removed++;
		return statement_run(state, SQL_LABEL_DELETE, "i", image);
	}
	if (present[0])
		counts->n_changed++;
	else
		counts->n_added++;
	return statement_run(
		state, SQL_LABEL_PUT, "iiti", image, site, name, (int64_t)clock_wall_us());
}

static int check_classes(struct state *state, int64_t site)
{
	sqlite3_stmt *statement;
	int r;

	r = statement_get(state, &statement, SQL_LABEL_COUNT, "i", site);
	if (r >= 0)
		r = statement_step(state, statement);
	if (r <= 0)
		return r;
	r = sqlite3_column_int64(statement, 0) > (int64_t)LABEL_MAX_CLASSES ? -E2BIG : 0;
	(void)sqlite3_reset(statement);
	return r;
}

/* The first name that the batch gives, and whether it gives others: a row of the audit is short. */
static void name_classes(char *ret_text, size_t n_bytes, const struct label *labels, uint32_t n)
{
	const char *first = NULL;
	bool is_alone = true;

	for (uint32_t i = 0; i < n; i++) {
		if (!labels[i].name)
			continue;
		first = first ? first : labels[i].name;
		is_alone = is_alone && strcmp(first, labels[i].name) == 0;
	}
	(void)snprintf(ret_text, n_bytes, "%s%s%s", first ? ": " : "", first ? first : "",
		is_alone ? "" : " and others");
}

static int record(struct state *state, const char *site, const struct label *labels, uint32_t n,
	const char *who, const struct label_counts *counts)
{
	char detail[512], names[128];

	if (counts->n_added + counts->n_changed + counts->n_removed == 0)
		return 0;
	name_classes(names, sizeof(names), labels, n);
	(void)snprintf(detail, sizeof(detail),
		"%u images labelled, %u relabelled, %u no longer by %.200s%s", counts->n_added,
		counts->n_changed, counts->n_removed, who, names);
	return audit_add(state, site, "image.label", detail);
}

static int set(struct state *state, const char *site, const struct label *labels, uint32_t n,
	const char *who, bool *is_unknown, struct label_counts *counts)
{
	int64_t id, image = 0;
	int r = site_id_changeable(state, site, &id);

	if (r < 0)
		return r;
	for (uint32_t i = 0; i < n; i++) {
		r = find_image(state, id, &labels[i].hash, &image);
		if (is_unknown)
			is_unknown[i] = r == 0;
		counts->n_unknown += r == 0;
		if (r > 0)
			r = change(state, id, image, labels[i].name, counts);
		if (r < 0)
			return r;
	}
	r = check_classes(state, id);
	return r < 0 ? r : record(state, site, labels, n, who, counts);
}

int state_label_set(struct state *state, const char *site, const struct label *labels, uint32_t n,
	const char *who, bool *is_unknown, struct label_counts *ret_counts)
{
	struct label_counts counts = { 0 };
	int r = state_begin(state);

	if (r < 0)
		return r;
	r = state_end(state, set(state, site, labels, n, who, is_unknown, &counts));
	if (r < 0)
		return r;
	*ret_counts = counts;
	return 0;
}

int state_label_list(
	struct state *state, const char *site, struct label_class **ret_rows, uint32_t *ret_n)
{
	_cleanup_(freep) struct label_class *rows = NULL;
	sqlite3_stmt *statement;
	uint32_t n = 0;
	int64_t id;
	int r;

	r = site_id(state, site, &id);
	if (r < 0)
		return r;
	rows = calloc(LABEL_MAX_CLASSES, sizeof(*rows));
	if (!rows)
		return -ENOMEM;
	r = statement_get(state, &statement, SQL_LABEL_CLASSES, "i", id);
	while (r >= 0 && (r = statement_step(state, statement)) > 0) {
		r = n == LABEL_MAX_CLASSES
			    ? -EBADMSG
			    : statement_text(statement, 0, rows[n].name, sizeof(rows[n].name));
		if (r < 0) {
			(void)sqlite3_reset(statement);
			break;
		}
		rows[n++].n_images = (uint64_t)sqlite3_column_int64(statement, 1);
	}
	if (r < 0)
		return r;
	*ret_rows = TAKE_PTR(rows);
	*ret_n = n;
	return 0;
}
