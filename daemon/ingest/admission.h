/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_INGEST_ADMISSION_H
#define KAMEN_INGEST_ADMISSION_H

#include "ingest/ingest.h"

enum arrival_source { ARRIVAL_SPOOL, ARRIVAL_ZMQ, ARRIVAL_PUSH, ARRIVAL_INFER };

enum arrival_state {
	ARRIVAL_READING, /* its source still collects the bytes, or they are hashed */
	ARRIVAL_WAITING, /* for a worker of the decoder */
	ARRIVAL_DECODING,
	ARRIVAL_WRITING,   /* the blob, by the hand */
	ARRIVAL_ADMITTING, /* the blob is on disk, serve is asked */
};

/**
 * One image on its way: READING -> WAITING -> DECODING -> WRITING -> ADMITTING -> gone. A refusal or an error
 * ends it at any point; whatever source it came from hears of the end.
 */
struct arrival {
	TAILQ_ENTRY(arrival) link;
	struct ingest *ingest;
	struct ingest_site *site;
	enum arrival_source source;
	enum arrival_state state;
	uint64_t id;   /* serve's, or our own with the top bit set */
	uint64_t turn; /* of those that wait, the lowest goes first */
	uint64_t n_reserved;
	int fd; /* the bytes, -1: not there yet */
	uint64_t n_bytes;
	uint32_t format, width, height, stride;
	struct digest hash;
	char blob[128];
	char sender[64], part_id[64];
	uint64_t capture_us;
	void *source_data; /* a spool's read; freed by the source's end */
	/* What the hand does for it: hashes, or writes what was decoded. Nobody else touches the job. */
	struct errand errand;
	struct decode_result decoded;
	size_t n_blob;
	int r;
};

/** @param n_reserved  counts against the room until the job ends or says how much it really is */
int arrival_new(struct arrival **ret_job, struct ingest *ingest, struct ingest_site *site,
	enum arrival_source source, uint64_t n_reserved);
void arrival_reserve(struct arrival *job, uint64_t n_bytes);
void arrival_free(struct arrival *job);

/** The job's bytes are there: from here on admission owns it. */
void admission_take(struct arrival *job);
/** Ends the job: the image itself is at fault and will not get better. */
void admission_refuse(struct arrival *job, int code, const char *reason);
/** Gives waiting jobs to free workers, those that a request waits for first, then pushes, and among
 * equals one of each sender in turn. */
void admission_feed(struct ingest *ingest);
void admission_reply(struct ingest *ingest, const Kamen__AdmitReply *reply);
/** A job of serve's; fd is taken. */
void admission_ask(struct ingest *ingest, const Kamen__DecodeJob *ask, int fd);

#endif
