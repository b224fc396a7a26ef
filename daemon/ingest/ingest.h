/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_INGEST_INGEST_H
#define KAMEN_INGEST_INGEST_H

#include <stdbool.h>
#include <sys/queue.h>
#include <systemd/sd-event.h>

#include "ingest/decoder.h"
#include "ingest/outbox.h"
#include "ingest/zmq_context.h"
#include "ops/config.h"
#include "ops/hand.h"

/*
 * The role's objects and who owns them: ingest owns sites and jobs, a site its spool and its
 * stream, a job the bytes of one image. One thread, one loop; whoever frees room or a decoder's
 * worker calls ingest_kick(), and the loop then asks every source for more. Images to be kept are
 * hashed and written by the loop's hand.
 */

/* What may be in flight at once: a flood waits in its folder or at its sender. */
#define INGEST_MAX_JOBS 64u
#define INGEST_MAX_BYTES (UINT64_C(256) << 20)
#define INGEST_MAX_ASKED 1024u /* serve's own jobs */

struct spool;
struct publisher;
struct router;
struct zmq_pull;
struct spool_reader;

struct ingest_site {
	LIST_ENTRY(ingest_site) link;
	char name[64], replay[512];
	char spool_path[512], endpoint[256];
	uint32_t shorter_px, settle_ms;
	struct spool *spool;   /* NULL: none wanted */
	struct zmq_pull *pull; /* NULL: none wanted */
	unsigned n_jobs;
	bool is_gone; /* not in serve's table any more; freed with its last job */
};

struct ingest {
	const struct config *config;
	sd_event *event;
	sd_event_source *kick;
	struct outbox *outbox;
	struct decoder *decoder;
	struct hand *
		hand; /* what takes a disk or much of the CPU, so that requests need not wait for it */
	struct spool_reader *reader;
	struct wire *role_wire, *stream_wire;
	struct zmq_context zmq;
	struct router *router;       /* NULL: none wanted */
	struct publisher *publisher; /* NULL: none wanted */
	sd_event_source *counting;
	uint64_t counts_sum; /* when they were last told */
	LIST_HEAD(, ingest_site) sites;
	struct ingest_site *rows; /* (n_rows), of a table that comes in parts */
	size_t n_rows;
	bool is_table_broken; /* a part of it was lost */
	TAILQ_HEAD(, arrival) jobs;
	unsigned n_jobs, n_asked;   /* own, serve's */
	uint64_t n_bytes;           /* reserved by own jobs */
	uint64_t turn;              /* of the job that was decoded last */
	char last_sender[64];       /* its */
	uint64_t last_ns, other_ns; /* when that began; and when one of another sender's did */
	uint64_t n_ids, n_blobs;
};

/** The role's whole life. decode: image_decode(); tests bring worse ones. @return exit status */
int ingest_run(const struct config *config, decoder_image_fn *decode);

/** Whether another job of at most n_bytes may start. */
bool ingest_has_room(const struct ingest *ingest, uint64_t n_bytes);
void ingest_kick(struct ingest *ingest);
/** Tells serve from now on how much came over ZeroMQ; again is nothing. */
int ingest_count(struct ingest *ingest);

/** Makes the sites what serve's table says, once its last part is there. */
void ingest_set_sites(struct ingest *ingest, const Kamen__SiteTable *table);
struct ingest_site *ingest_find_site(struct ingest *ingest, const char *name);
void ingest_site_unref(struct ingest_site *site);
void ingest_free_sites(struct ingest *ingest);

#endif
