/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>

#include "site/state_internal.h"

/* Joins the open batch or begins one. */
int state_batch_join(struct state *state)
{
	int r;

	if (state->batch_error < 0)
		return state->batch_error;
	if (!sqlite3_get_autocommit(state->db))
		return 0;
	r = state_relax(state, state->is_deferred);
	if (r == 0)
		r = statement_run(state, SQL_BEGIN, "");
	if (r == 0)
		state->batch_open = true;
	return r;
}

/* A failed statement may have rolled back what the batch held; then all of it is lost. */
int state_batch_leave(struct state *state, int r)
{
	if (r < 0 && sqlite3_get_autocommit(state->db))
		state_batch_fail(state, r);
	return r;
}

/* The row promises the blob: it must be there, whole, under a harmless name. */
static int check_blob(const struct state *state, const struct image_row *row)
{
	_cleanup_(closep) int fd = -1;
	struct stat st;

	if (row->blob[0] == 0 || row->blob[0] == '.' || strchr(row->blob, '/'))
		return -EINVAL;
	fd = sweep_open_folder(state, row->site, "replay");
	if (fd < 0 || fstatat(fd, row->blob, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -ESTALE;
	return S_ISREG(st.st_mode) && (uint64_t)st.st_size == row->n_bytes ? 0 : -ESTALE;
}

static int add_image(struct state *state, const struct image_row *row)
{
	int64_t id;
	int r = site_id_changeable(state, row->site, &id);

	if (r < 0)
		return r;
	r = check_blob(state, row);
	if (r < 0)
		return r;
	r = statement_run(state, SQL_IMAGE_ADD, "ihtiiiitttii", id, &row->hash, row->blob,
		(int64_t)row->n_bytes, (int64_t)row->width, (int64_t)row->height,
		(int64_t)row->n_channels, row->source, row->sender, row->part_id,
		(int64_t)row->capture_us, (int64_t)clock_wall_us());
	if (r < 0)
		return r;
	if (sqlite3_changes(state->db) > 0)
		return 1;
	/* What a class brought is the line's too from now on: it does not go with that class. */
	r = statement_run(state, SQL_SUPPORT_OF_LINE, "ih", id, &row->hash);
	if (r < 0)
		return r;
	return statement_run(state, SQL_SITE_COUNT, "iiii", (int64_t)1, (int64_t)0, (int64_t)0, id);
}

int state_admit(struct state *state, const struct image_row *row)
{
	int r = state_batch_join(state);

	if (r < 0)
		return r;
	return state_batch_leave(state, add_image(state, row));
}

int state_audit_soon(struct state *state, const char *site, const char *what, const char *detail)
{
	int r = state_batch_join(state);

	return r < 0 ? r : state_batch_leave(state, audit_add(state, site, what, detail));
}

int state_take_back(struct state *state, const char *site, const struct digest *hash)
{
	sqlite3_stmt *statement;
	int64_t id, image = 0;
	int r = state_begin(state);

	if (r < 0)
		return r;
	r = site_id(state, site, &id);
	if (r == 0)
		r = statement_get(state, &statement, SQL_IMAGE_FIND, "ih", id, hash);
	if (r == 0 && (r = statement_step(state, statement)) > 0) {
		image = sqlite3_column_int64(statement, 0);
		(void)sqlite3_reset(statement);
		r = statement_run(state, SQL_IMAGE_DELETE, "i", image);
	}
	return state_end(state, r);
}

int state_count_refused(struct state *state, const char *site, uint64_t n_rejected, uint64_t n_gaps)
{
	int64_t id;
	int r = state_batch_join(state);

	if (r < 0)
		return r;
	r = site_id(state, site, &id);
	if (r == 0)
		r = statement_run(state, SQL_SITE_COUNT, "iiii", (int64_t)0, (int64_t)n_rejected,
			(int64_t)n_gaps, id);
	return state_batch_leave(state, r);
}

/* ---- eviction */

/* Of weights, between the easiest image and the hardest. */
#define HARD_OCTAVES 4

enum { RANK_PINNED, RANK_LABELLED, RANK_OTHER };

struct stored {
	int64_t id;
	uint64_t n_bytes;
	unsigned rank;   /* in the sample: a round's and supports, labelled ones, the others */
	double draw;     /* of the sample: a fixed one an image, so that it nests */
	double hardness; /* NAN: not known */
	char blob[128];
};

struct stored_list {
	struct stored *rows; /* newest first */
	size_t n, size;
};

/* Exponential: divided by a weight, the lowest of them are a sample by these weights. */
static double draw_of(uint64_t random)
{
	return -log1p(-(double)(random >> 11) * 0x1p-53);
}

static int add_stored(struct stored_list *list, sqlite3_stmt *statement, uint64_t seed)
{
	struct {
		uint64_t seed;
		struct digest hash;
	} key = { .seed = seed };
	struct stored *row;

	if (list->n == list->size) {
		size_t size = list->size ? 2 * list->size : 256;
		struct stored *grown = realloc(list->rows, size * sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		list->rows = grown;
		list->size = size;
	}
	row = &list->rows[list->n];
	row->id = sqlite3_column_int64(statement, 0);
	row->n_bytes = (uint64_t)sqlite3_column_int64(statement, 3);
	if (statement_digest(statement, 1, &key.hash) < 0 ||
		statement_text(statement, 2, row->blob, sizeof(row->blob)) < 0)
		return -EBADMSG;
	row->draw = draw_of(digest_checksum(&key, sizeof(key)));
	row->hardness = sqlite3_column_type(statement, 5) == SQLITE_NULL
				? (double)NAN
				: sqlite3_column_double(statement, 5);
	row->rank = sqlite3_column_int(statement, 6)   ? RANK_PINNED
		    : sqlite3_column_int(statement, 4) ? RANK_LABELLED
						       : RANK_OTHER;
	list->n++;
	return 0;
}

static int read_stored(struct state *state, int64_t id, struct stored_list *list)
{
	sqlite3_stmt *statement;
	int r;

	r = statement_get(state, &statement, SQL_IMAGE_NEWEST_FIRST, "i", id);
	while (r >= 0 && (r = statement_step(state, statement)) > 0) {
		r = add_stored(list, statement, (uint64_t)id);
		if (r < 0)
			(void)sqlite3_reset(statement);
	}
	return r;
}

static int by_rank(const void *a, const void *b)
{
	const struct stored *x = a, *y = b;

	if (x->rank != y->rank)
		return x->rank < y->rank ? -1 : 1;
	if (x->draw != y->draw)
		return x->draw < y->draw ? -1 : 1;
	return x->id < y->id ? -1 : 1;
}

static int by_number(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* How many of them are below. */
static size_t n_below(const double *sorted, size_t n, double value)
{
	size_t from = 0;

	while (n > 0) {
		size_t half = n / 2;

		if (sorted[from + half] < value) {
			from += half + 1;
			n -= half + 1;
		} else {
			n = half;
		}
	}
	return from;
}

/* By rank: the numbers themselves have no unit. An image of which nothing is known is in the middle. */
static int prefer_hard(struct stored_list *list)
{
	_cleanup_(freep) double *sorted = calloc(list->n + 1, sizeof(*sorted));
	size_t n = 0;

	if (!sorted)
		return -ENOMEM;
	for (size_t i = 0; i < list->n; i++)
		if (!isnan(list->rows[i].hardness))
			sorted[n++] = list->rows[i].hardness;
	qsort(sorted, n, sizeof(*sorted), by_number);
	for (size_t i = 0; i < list->n && n > 1; i++) {
		struct stored *row = &list->rows[i];
		double share;

		if (isnan(row->hardness))
			continue;
		share = (double)n_below(sorted, n, row->hardness) / (double)(n - 1);
		row->draw /= exp2(HARD_OCTAVES * (share - .5));
	}
	return 0;
}

/*
 * Splits off what goes: behind the newest half of the bytes comes the sample, and of that what has
 * the highest draws and belongs to no round and no class. Labels are a person's work: an image without one goes
 * first. @return index of the first that goes, after sorting.
 */
static size_t choose(struct stored_list *list, uint64_t max_bytes, int64_t pinned)
{
	uint64_t n_bytes = 0;
	size_t first = 0, kept;

	while (first < list->n && n_bytes + list->rows[first].n_bytes <= max_bytes / 2)
		n_bytes += list->rows[first++].n_bytes;
	/* The last image stays whatever its size, or a small bound would keep nothing. */
	if (first == 0 && list->n > 0)
		n_bytes += list->rows[first++].n_bytes;

	for (size_t i = first; i < list->n; i++)
		if (list->rows[i].id <= pinned)
			list->rows[i].rank = RANK_PINNED;
	if (first == list->n)
		return list->n;
	qsort(list->rows + first, list->n - first, sizeof(*list->rows), by_rank);
	for (kept = first; kept < list->n; kept++) {
		const struct stored *row = &list->rows[kept];

		if (row->rank != RANK_PINNED && n_bytes + row->n_bytes > max_bytes)
			break;
		n_bytes += row->n_bytes;
	}
	return kept;
}

static int delete_rows(struct state *state, const struct stored_list *list, size_t from)
{
	int r = state_begin(state);

	if (r < 0)
		return r;
	for (size_t i = from; r >= 0 && i < list->n; i++)
		r = statement_run(state, SQL_IMAGE_DELETE, "i", list->rows[i].id);
	return state_end(state, r);
}

/*
 * What a round holds cannot go, and to find that out costs a look at every row. So a store that stays
 * too large is not looked at again before the pin or the bound moves, or some images have come.
 */
static struct evict_rest *find_rest(struct state *state, int64_t id)
{
	struct evict_rest *rest;

	SLIST_FOREACH(rest, &state->rests, next)
	if (rest->site_id == id)
		break;
	return rest;
}

static void remember_rest(struct state *state, const struct evict_rest *what)
{
	struct evict_rest *rest = find_rest(state, what->site_id);

	if (!rest) {
		rest = calloc(1, sizeof(*rest));
		if (!rest)
			return;
		SLIST_INSERT_HEAD(&state->rests, rest, next);
	}
	rest->site_id = what->site_id;
	rest->pinned = what->pinned;
	rest->max_bytes = what->max_bytes;
	rest->until_bytes = what->until_bytes;
}

static bool is_at_rest(struct state *state, const struct evict_rest *now, uint64_t n_bytes)
{
	const struct evict_rest *rest = find_rest(state, now->site_id);

	return rest && rest->pinned == now->pinned && rest->max_bytes == now->max_bytes &&
	       n_bytes < rest->until_bytes;
}

void state_image_forget(struct state *state, int64_t site_id)
{
	struct evict_rest *rest = find_rest(state, site_id);

	if (rest)
		SLIST_REMOVE(&state->rests, rest, evict_rest, next);
	free(rest);
}

void state_image_done(struct state *state)
{
	struct evict_rest *rest;

	while ((rest = SLIST_FIRST(&state->rests))) {
		SLIST_REMOVE_HEAD(&state->rests, next);
		free(rest);
	}
}

static int evict(struct state *state, const char *site, int64_t id, int64_t pinned, uint64_t to,
	bool prefers_hard)
{
	_cleanup_(freep) struct stored *rows = NULL;
	_cleanup_(closep) int fd = -1;
	struct stored_list list = { 0 };
	size_t from;
	int r;

	r = read_stored(state, id, &list);
	rows = list.rows;
	if (r == 0 && prefers_hard)
		r = prefer_hard(&list);
	if (r < 0)
		return r;
	from = choose(&list, to, pinned);
	if (from == list.n)
		return 0;
	r = delete_rows(state, &list, from);
	if (r < 0)
		return r;
	fd = sweep_open_folder(state, site, "replay");
	for (size_t i = from; fd >= 0 && i < list.n; i++)
		(void)unlinkat(fd, list.rows[i].blob, 0);
	return 0;
}

static int read_size(
	struct state *state, const char *site, struct evict_rest *ret_now, uint64_t *ret_n_bytes)
{
	sqlite3_stmt *statement;
	int r;

	r = statement_get(state, &statement, SQL_SITE_GET, "t", site);
	if (r < 0)
		return r;
	r = statement_step(state, statement);
	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	ret_now->site_id = sqlite3_column_int64(statement, 0);
	*ret_n_bytes = (uint64_t)sqlite3_column_int64(statement, 5);
	ret_now->pinned = sqlite3_column_int64(statement, 6);
	(void)sqlite3_reset(statement);
	return 0;
}

int state_evict(struct state *state, const char *site, uint64_t max_bytes, bool prefers_hard)
{
	struct evict_rest now = { .max_bytes = max_bytes };
	uint64_t n_bytes;
	int r;

	r = read_size(state, site, &now, &n_bytes);
	if (r < 0 || n_bytes <= max_bytes || is_at_rest(state, &now, n_bytes))
		return r;
	/* A little below the bound, so that a full store does not evict at every image. */
	r = evict(state, site, now.site_id, now.pinned, max_bytes - max_bytes / 32, prefers_hard);
	if (r == 0)
		r = read_size(state, site, &now, &n_bytes);
	if (r < 0 || n_bytes <= max_bytes)
		return r;
	now.until_bytes = n_bytes + max_bytes / 32;
	remember_rest(state, &now);
	return 0;
}
