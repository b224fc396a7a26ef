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

static void site_go(struct ingest_site *site)
{
	site->is_gone = true;
	/* The endpoint may be wanted by its successor; a file on its way still needs the spool. */
	zmq_pull_free(site->pull);
	site->pull = NULL;
	ingest_site_unref(site);
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

static int start_sources(struct ingest *ingest, struct ingest_site *site)
{
	int r = 0;

	if (site->spool_path[0])
		r = spool_new(&site->spool, ingest, site);
	if (r == 0 && site->endpoint[0])
		r = zmq_pull_new(&site->pull, ingest, site);
	return r;
}

static int set_site(struct ingest *ingest, const Kamen__IngestSite *row)
{
	_cleanup_(freep) struct ingest_site *site = calloc(1, sizeof(*site));
	struct ingest_site *old, *added;
	int r;

	if (!site)
		return -ENOMEM;
	r = fill(site, row);
	if (r < 0)
		return r;
	old = ingest_find_site(ingest, site->name);
	if (old && is_same(old, site)) {
		old->shorter_px = site->shorter_px;
		old->settle_ms = site->settle_ms;
		old->is_listed = true;
		return 0;
	}
	if (old)
		site_go(old);
	added = TAKE_PTR(site);
	added->is_listed = true;
	LIST_INSERT_HEAD(&ingest->sites, added, link);
	return start_sources(ingest, added);
}

void ingest_set_sites(struct ingest *ingest, const Kamen__SiteTable *table)
{
	struct ingest_site *site, *next;

	LIST_FOREACH(site, &ingest->sites, link)
	site->is_listed = false;
	/* A removed site's endpoint may now be another's: those that go, go first. */
	for (size_t i = 0; i < table->n_sites; i++) {
		site = ingest_find_site(ingest, table->sites[i]->site);
		if (site)
			site->is_listed = true;
	}
	for (site = LIST_FIRST(&ingest->sites); site; site = next) {
		next = LIST_NEXT(site, link);
		if (!site->is_listed && !site->is_gone)
			site_go(site);
	}
	for (size_t i = 0; i < table->n_sites; i++) {
		int r = set_site(ingest, table->sites[i]);

		if (r < 0)
			log_error("site %s: no ingest: %s", table->sites[i]->site, strerror(-r));
	}
	ingest_kick(ingest);
}

void ingest_free_sites(struct ingest *ingest)
{
	while (!LIST_EMPTY(&ingest->sites))
		site_free(LIST_FIRST(&ingest->sites));
}
