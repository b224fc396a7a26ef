/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "ingest/ingest.h"
#include "ingest/spool.h"
#include "ingest/zmq_pull.h"
#include "ops/log.h"

struct ingest_site *ingest_find_site(struct ingest *ingest, const char *name)
{
	struct ingest_site *site;

	LIST_FOREACH(site, &ingest->sites, link)
	if (!site->is_gone && strcmp(site->name, name) == 0)
		return site;
	return NULL;
}

static void site_free(struct ingest_site *site)
{
	LIST_REMOVE(site, link);
	spool_free(site->spool);
	zmq_pull_free(site->pull);
	free(site);
}

void ingest_site_unref(struct ingest_site *site)
{
	if (site->is_gone && site->n_jobs == 0)
		site_free(site);
}

static int copy_text(char *ret_text, size_t n_bytes, const char *text)
{
	int n = snprintf(ret_text, n_bytes, "%s", text ? text : "");

	return n < 0 || (size_t)n >= n_bytes ? -ENAMETOOLONG : 0;
}

static int fill(struct ingest_site *site, const Kamen__IngestSite *row)
{
	int r = copy_text(site->name, sizeof(site->name), row->site);

	if (r == 0)
		r = copy_text(site->replay, sizeof(site->replay), row->replay);
	if (r == 0)
		r = copy_text(site->spool_path, sizeof(site->spool_path), row->spool);
	if (r == 0)
		r = copy_text(site->endpoint, sizeof(site->endpoint), row->zmq_pull);
	site->shorter_px = row->shorter_px;
	site->settle_ms = row->has_settle_ms ? row->settle_ms : 0;
	return r;
}

/* Whether its sources may go on as they are. */
static bool is_same(const struct ingest_site *a, const struct ingest_site *b)
{
	return strcmp(a->replay, b->replay) == 0 && strcmp(a->spool_path, b->spool_path) == 0 &&
	       strcmp(a->endpoint, b->endpoint) == 0;
}

/* What the table says of a site that is there: nothing, something else, or the same. */
static bool stays(struct ingest_site *site, const struct ingest *ingest)
{
	for (size_t i = 0; i < ingest->n_rows; i++) {
		const struct ingest_site *row = &ingest->rows[i];

		if (strcmp(row->name, site->name) != 0)
			continue;
		if (!is_same(site, row))
			return false;
		site->shorter_px = row->shorter_px;
		site->settle_ms = row->settle_ms;
		return true;
	}
	return false;
}

/* A bound socket passes from one that goes to one that comes: libzmq closes in its own time, and
 * would then unlink the path of an ipc:// endpoint that is bound again. */
static struct zmq_pull *inherit_pull(struct ingest *ingest, struct ingest_site *heir)
{
	struct ingest_site *site;

	LIST_FOREACH(site, &ingest->sites, link)
	{
		struct zmq_pull *pull = site->pull;

		if (!site->is_gone || !pull || strcmp(site->endpoint, heir->endpoint) != 0)
			continue;
		site->pull = NULL;
		zmq_pull_set_site(pull, heir);
		return pull;
	}
	return NULL;
}

static int start_sources(struct ingest *ingest, struct ingest_site *site)
{
	int r = 0;

	if (site->spool_path[0])
		r = spool_new(&site->spool, ingest, site);
	if (r < 0 || !site->endpoint[0])
		return r;
	site->pull = inherit_pull(ingest, site);
	return site->pull ? 0 : zmq_pull_new(&site->pull, ingest, site);
}

static int add_site(struct ingest *ingest, const struct ingest_site *row)
{
	struct ingest_site *site = malloc(sizeof(*site));

	if (!site)
		return -ENOMEM;
	*site = *row;
	LIST_INSERT_HEAD(&ingest->sites, site, link);
	return start_sources(ingest, site);
}

static void free_gone(struct ingest *ingest)
{
	struct ingest_site *site, *next;

	for (site = LIST_FIRST(&ingest->sites); site; site = next) {
		next = LIST_NEXT(site, link);
		if (!site->is_gone)
			continue;
		/* A file on its way still needs the spool. */
		zmq_pull_free(site->pull);
		site->pull = NULL;
		ingest_site_unref(site);
	}
}

static void forget_rows(struct ingest *ingest)
{
	free(ingest->rows);
	ingest->rows = NULL;
	ingest->n_rows = 0;
}

static int take_part(struct ingest *ingest, const Kamen__SiteTable *part)
{
	struct ingest_site *rows;

	if (part->n_sites == 0)
		return 0;
	rows = reallocarray(ingest->rows, ingest->n_rows + part->n_sites, sizeof(*rows));
	if (!rows)
		return -ENOMEM;
	ingest->rows = rows;
	for (size_t i = 0; i < part->n_sites; i++) {
		struct ingest_site *row = &rows[ingest->n_rows];
		int r;

		*row = (struct ingest_site){ .n_jobs = 0 };
		r = fill(row, part->sites[i]);
		if (r < 0)
			log_error("site %s: no ingest: %s", part->sites[i]->site, strerror(-r));
		else
			ingest->n_rows++;
	}
	return 0;
}

static void apply_table(struct ingest *ingest)
{
	struct ingest_site *site;

	LIST_FOREACH(site, &ingest->sites, link)
	if (!site->is_gone)
		site->is_gone = !stays(site, ingest);
	for (size_t i = 0; i < ingest->n_rows; i++) {
		int r = 0;

		if (!ingest_find_site(ingest, ingest->rows[i].name))
			r = add_site(ingest, &ingest->rows[i]);
		if (r < 0)
			log_error("site %s: no ingest: %s", ingest->rows[i].name, strerror(-r));
	}
	free_gone(ingest);
	ingest_kick(ingest);
}

void ingest_set_sites(struct ingest *ingest, const Kamen__SiteTable *table)
{
	int r;

	if (table->first) {
		forget_rows(ingest);
		ingest->is_table_broken = false;
	}
	r = take_part(ingest, table);
	if (r < 0) {
		log_error("the table of sites stays as it was: %s", strerror(-r));
		ingest->is_table_broken = true;
	}
	if (!table->last)
		return;
	/* Half a table would take the other half's sites away. */
	if (!ingest->is_table_broken)
		apply_table(ingest);
	forget_rows(ingest);
}

void ingest_free_sites(struct ingest *ingest)
{
	forget_rows(ingest);
	while (!LIST_EMPTY(&ingest->sites))
		site_free(LIST_FIRST(&ingest->sites));
}
