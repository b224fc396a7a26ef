/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_REQUEST_H
#define KAMEN_SERVE_REQUEST_H

#include <stdatomic.h>
#include <systemd/sd-event.h>

#include "engine.h"
#include "serve/later.h"
#include "serve/serving.h"
#include "shm_layout.h"

/*
 *   FREE -> PENDING --(inference, CAS)--> DONE --> FREE
 *              `----(loop, CAS)---------> LATE --> FREE
 *
 * PENDING covers waiting for ingest's decoder and for a batch. Whoever moves it on by the one
 * compare-and-swap gives the answer; the loser's work is dropped. Only the loop thread frees, and
 * only once neither the scheduler nor ingest holds the request.
 */
enum request_state { REQUEST_FREE, REQUEST_PENDING, REQUEST_DONE, REQUEST_LATE };

struct session;
struct shadow_sample;
struct site;
struct serve;

/** What a client is told, beside its own words. */
struct answer {
	int code;
	const char *reason; /* NULL: nothing to say */
	bool is_broken;     /* the forward pass failed */
	enum shm_verdict verdict;
	float novelty, distance;
	float score, unknown;        /* confidence in the label; NAN: not known */
	char label[SHM_LABEL_CHARS]; /* "": of no class */
	uint32_t version, outcome;
	uint32_t n_embedding, n_hardness, hardness_side; /* that were asked for */
	uint64_t queue_ns, compute_ns, checksum;
	struct digest space;
};

/** One request of a session, made with it: the checked copy, and what becomes of it. */
struct request {
	struct session *session;
	_Atomic int state;
	struct shm_request wire; /* the only copy that is used */
	uint64_t received_ns;
	struct site *site; /* referenced */
	struct serving
		*serving; /* the snapshot asked for, or NULL: the champion when its turn comes */
	struct image_view view; /* into the client's slot, or into decoded */
	void *decoded;          /* mapping of ingest's pixels, or NULL */
	size_t decoded_bytes;

	/* Of its bytes that are read in parts (reading.h). */
	struct later_item reading;
	uint64_t n_read;
	struct checksum *checksum; /* of an echo */

	/* With ingest. */
	uint64_t job_id; /* 0: no job */
	int job_fd;
	unsigned job_tries;
	struct request *job_next;

	struct shadow_sample *sample; /* for the shadow (shadow.h); NULL: none */

	sd_event_source *timer; /* for the deadline; made at first use */
	uint64_t *turn;         /* its user's at inference, while it waits there */
	struct request *next;   /* of the free list, a site's queue, or the list of the done */

	struct answer answer; /* the inference thread's while PENDING, the loop's once DONE */
	float *values; /* (SHM_MAX_VALUES), of which answer.n_embedding + answer.n_hardness count */
};

/** Makes a free one pending: everything but the copy of the descriptor. */
void request_reset(struct request *request);
/** Checks a fresh submission and sends it on its way: echo, inference, or ingest. */
void request_start(struct serve *serve, struct request *request);
/**
 * One that an earlier process received then, and counted, but did not answer. is_allowed: or it is
 * answered with -EIO, because it may be what ended that process.
 */
void request_start_again(
	struct serve *serve, struct request *request, uint64_t received_ns, bool is_allowed);
/** Pixels are there: to the site's queue. */
void request_queue(struct serve *serve, struct request *request);
/** Answers a pending request with an error; whoever holds it still has to finish it. */
void request_fail(struct request *request, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/** Nobody holds it any more: answers with request->answer unless that was done, then frees it. */
void request_finish(struct serve *serve, struct request *request);
/** The same for an answer that the loop itself has written. */
void request_complete(struct serve *serve, struct request *request);
/** Its client is gone. */
void request_abandon(struct serve *serve, struct request *request);
/** Finishes what the inference thread has handed back. */
void request_reap(struct serve *serve);

#endif
