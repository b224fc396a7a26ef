/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "site/state_internal.h"

static int keep(
	struct state *state, const char *site, uint32_t version, bool is_kept, const char *who)
{
	struct version_row row;
	char detail[160];
	int64_t id;
	int r;

	r = site_id(state, site, &id);
	if (r >= 0)
		r = state_version_get(state, site, version, &row);
	if (r < 0)
		return r;
	if (row.state == VERSION_LEARNING || row.state == VERSION_FAILED)
		return -EPERM;
	if (row.keep == is_kept)
		return 0;
	r = statement_run(state, SQL_VERSION_KEEP, "iii", (int64_t)is_kept, id, (int64_t)version);
	if (r < 0)
		return r;
	(void)snprintf(detail, sizeof(detail), "version %u by %.100s", version, who);
	return audit_add(state, site, is_kept ? "mask.pin" : "mask.unpin", detail);
}

int state_version_keep(
	struct state *state, const char *site, uint32_t version, bool is_kept, const char *who)
{
	int r = state_begin(state);

	if (r < 0)
		return r;
	return state_end(state, keep(state, site, version, is_kept, who));
}

/* ---- what is too old */

struct prune {
	struct version_row *rows; /* by version */
	uint32_t n, champion, predecessor, in_use;
};

/* Learnt and failed are counted apart: a learner that fails all night pushes no mask out. */
static bool is_too_old(const struct prune *prune, uint32_t i, uint32_t n_keep)
{
	const struct version_row *row = &prune->rows[i];
	uint32_t n_newer = 0;

	if (row->keep || row->state == VERSION_LEARNING || row->version == prune->champion ||
		row->version == prune->predecessor || row->version == prune->in_use)
		return false;
	for (uint32_t k = i + 1; k < prune->n; k++)
		n_newer += (prune->rows[k].state == VERSION_FAILED) ==
				   (row->state == VERSION_FAILED) &&
			   prune->rows[k].state != VERSION_LEARNING;
	return n_newer >= n_keep;
}

static int remove_row(struct state *state, int64_t id, const struct version_row *row)
{
	char detail[64];
	int r;

	r = statement_run(state, SQL_VERSION_DELETE, "ii", id, (int64_t)row->version);
	if (r >= 0)
		r = statement_run(state, SQL_PROMOTION_FORGET, "ii", id, (int64_t)row->version);
	if (r >= 0)
		r = statement_run(state, SQL_PROMOTION_JOIN, "i", id);
	if (r < 0)
		return r;
	(void)snprintf(detail, sizeof(detail), "version %u (%s)", row->version,
		version_state_name(row->state));
	return audit_add(state, row->site, "mask.remove", detail);
}

/* Leaves in prune->rows what has gone; in one transaction. */
static int remove_rows(struct state *state, const char *site, uint32_t n_keep, struct prune *prune)
{
	uint32_t n_gone = 0;
	int64_t id;
	int r;

	r = site_id(state, site, &id);
	if (r >= 0)
		r = promotion_top(state, id, &prune->champion, &prune->predecessor);
	if (r >= 0)
		r = state_version_list(state, site, &prune->rows, &prune->n);
	for (uint32_t i = 0; r >= 0 && i < prune->n; i++) {
		if (!is_too_old(prune, i, n_keep))
			continue;
		r = remove_row(state, id, &prune->rows[i]);
		/* Only older rows are written over: those that are still to come stay whole. */
		prune->rows[n_gone++].version = prune->rows[i].version;
	}
	prune->n = n_gone;
	return r;
}

static void remove_files(struct state *state, const char *site, const struct prune *prune)
{
	static const char *const suffixes[] = { "kmask", "kcas", "kref", "khard", "manifest" };
	_cleanup_(closep) int fd = sweep_open_folder(state, site, "masks");
	char name[32];

	for (uint32_t i = 0; fd >= 0 && i < prune->n; i++)
		for (unsigned k = 0; k < ARRAY_SIZE(suffixes); k++) {
			(void)snprintf(
				name, sizeof(name), "%u.%s", prune->rows[i].version, suffixes[k]);
			/* What stays has no row: the next start sweeps it. */
			(void)unlinkat(fd, name, 0);
		}
}

int state_version_prune(
	struct state *state, const char *site, uint32_t n_keep, uint32_t in_use, uint32_t *ret_n)
{
	struct prune prune = { .in_use = in_use };
	int r;

	r = state_begin(state);
	if (r < 0)
		return r;
	r = state_end(state, remove_rows(state, site, n_keep, &prune));
	if (r >= 0) {
		remove_files(state, site, &prune);
		*ret_n = prune.n;
	}
	free(prune.rows);
	return r < 0 ? r : 0;
}
