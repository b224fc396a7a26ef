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
static bool stays(struct ingest_site *site, const Kamen__SiteTable *table)
{
	for (size_t i = 0; i < table->n_sites; i++) {
		struct ingest_site row = { .n_jobs = 0 };

		if (strcmp(table->sites[i]->site, site->name) != 0)
			continue;
		if (fill(&row, table->sites[i]) < 0 || !is_same(site, &row))
			return false;
		site->shorter_px = row.shorter_px;
		site->settle_ms = row.settle_ms;
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

static int add_site(struct ingest *ingest, const Kamen__IngestSite *row)
{
	_cleanup_(freep) struct ingest_site *site = calloc(1, sizeof(*site));
	struct ingest_site *added;
	int r;

	if (!site)
		return -ENOMEM;
	r = fill(site, row);
	if (r < 0)
		return r;
	added = TAKE_PTR(site);
	LIST_INSERT_HEAD(&ingest->sites, added, link);
	return start_sources(ingest, added);
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

void ingest_set_sites(struct ingest *ingest, const Kamen__SiteTable *table)
{
	struct ingest_site *site;

	LIST_FOREACH(site, &ingest->sites, link)
	if (!site->is_gone)
		site->is_gone = !stays(site, table);
	for (size_t i = 0; i < table->n_sites; i++) {
		int r = 0;

		if (!ingest_find_site(ingest, table->sites[i]->site))
			r = add_site(ingest, table->sites[i]);
		if (r < 0)
			log_error("site %s: no ingest: %s", table->sites[i]->site, strerror(-r));
	}
	free_gone(ingest);
	ingest_kick(ingest);
}

void ingest_free_sites(struct ingest *ingest)
{
	while (!LIST_EMPTY(&ingest->sites))
		site_free(LIST_FIRST(&ingest->sites));
}
