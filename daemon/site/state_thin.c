/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "site/state_internal.h"
#include "site/twins.h"

struct image_name {
	char blob[128];
};

/* @return 1: it is there, 0: it is not, or an error */
static int find(struct state *state, int64_t site, const struct digest *hash, int64_t *ret_id,
	struct image_name *ret_name)
{
	sqlite3_stmt *statement;
	int r;

	r = statement_get(state, &statement, SQL_IMAGE_FIND, "ih", site, hash);
	if (r < 0)
		return r;
	r = statement_step(state, statement);
	if (r <= 0)
		return r;
	*ret_id = sqlite3_column_int64(statement, 0);
	r = statement_text(statement, 1, ret_name->blob, sizeof(ret_name->blob));
	(void)sqlite3_reset(statement);
	return r < 0 ? r : 1;
}

/* @return 1: it has such a row, 0: it has none, or an error */
static int has(struct state *state, enum statement which, int64_t image)
{
	sqlite3_stmt *statement;
	int r;

	r = statement_get(state, &statement, which, "i", image);
	if (r >= 0)
		r = statement_step(state, statement);
	if (r > 0)
		(void)sqlite3_reset(statement);
	return r;
}

/*
 * The second goes and never the first, whichever came earlier: the first may stand for others too.
 * @return 1: it is gone, 0: there was nothing to do
 */
static int thin_pair(struct state *state, int64_t site, int64_t pinned, const struct twin *twin,
	struct image_name *ret_name)
{
	struct image_name names[2];
	int64_t ids[2];
	int r;

	r = find(state, site, &twin->a, &ids[0], &names[0]);
	if (r > 0)
		r = find(state, site, &twin->b, &ids[1], &names[1]);
	if (r <= 0)
		return r;
	if (ids[0] == ids[1] || ids[1] <= pinned)
		return 0;
	/* What a person has said of it keeps it. */
	r = has(state, SQL_LABEL_GET, ids[1]);
	if (r == 0)
		r = has(state, SQL_SUPPORT_CLASS, ids[1]);
	if (r != 0)
		return r < 0 ? r : 0;
	r = statement_run(state, SQL_IMAGE_DELETE, "i", ids[1]);
	if (r < 0)
		return r;
	*ret_name = names[1];
	return 1;
}

static int read_site(struct state *state, const char *site, int64_t *ret_id, int64_t *ret_pinned,
	uint64_t *ret_n_images)
{
	sqlite3_stmt *statement;
	int r;

	r = statement_get(state, &statement, SQL_SITE_GET, "t", site);
	if (r < 0)
		return r;
	r = statement_step(state, statement);
	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	*ret_id = sqlite3_column_int64(statement, 0);
	*ret_n_images = (uint64_t)sqlite3_column_int64(statement, 1);
	*ret_pinned = sqlite3_column_int64(statement, 6);
	(void)sqlite3_reset(statement);
	return 0;
}

static int thin(struct state *state, const char *site, const struct twins *twins, uint64_t n_min,
	struct image_name *gone, uint32_t *ret_n)
{
	int64_t id = 0, pinned = 0;
	uint64_t n_images = 0;
	char detail[64];
	uint32_t n = 0;
	int r;

	r = read_site(state, site, &id, &pinned, &n_images);
	for (uint32_t i = 0; r >= 0 && i < twins->n && n_images - n > n_min; i++) {
		r = thin_pair(state, id, pinned, &twins->pairs[i], &gone[n]);
		n += r > 0;
	}
	if (r < 0)
		return r;
	*ret_n = n;
	if (n == 0)
		return 0;
	(void)snprintf(detail, sizeof(detail), "%u near-duplicates of %llu images", n,
		(unsigned long long)n_images);
	return audit_add(state, site, "replay.thin", detail);
}

int state_thin(struct state *state, const char *site, const struct twins *twins, uint64_t n_min,
	uint32_t *ret_n)
{
	_cleanup_(freep) struct image_name *gone = calloc((size_t)twins->n + 1, sizeof(*gone));
	_cleanup_(closep) int fd = -1;
	uint32_t n = 0;
	int r;

	if (!gone)
		return -ENOMEM;
	r = state_begin(state);
	if (r < 0)
		return r;
	r = state_end(state, thin(state, site, twins, n_min, gone, &n));
	if (r < 0)
		return r;
	fd = sweep_open_folder(state, site, "replay");
	for (uint32_t i = 0; fd >= 0 && i < n; i++)
		(void)unlinkat(fd, gone[i].blob, 0);
	*ret_n = n;
	return 0;
}
