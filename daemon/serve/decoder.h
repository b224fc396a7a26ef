/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_DECODER_H
#define KAMEN_SERVE_DECODER_H

#include "kamen.pb-c.h"
#include "serve/request.h"

/** Requests whose bytes are with ingest: encoded images to infer, and every PUSH. */
struct decoder {
	struct request *jobs; /* in order of their ids */
	struct request **tail;
	uint64_t last_id;
	uint64_t n_jobs, n_failed;
	uint64_t n_bytes; /* of pixels that requests hold */
};

void decoder_init(struct decoder *decoder);
/** Copies the bytes out of the client's reach and hands them over, now or when ingest is there. */
int decoder_submit(struct serve *serve, struct request *request);
/** Copies up to about so many bytes more. 1: that was all, 0: there are more, or an error. */
int decoder_copy(struct request *request, size_t n_bytes);
/** What reading.h has copied, or not: the error. */
void decoder_copied(struct serve *serve, struct request *request, int r);
/** Ingest's answer will find nobody. */
void decoder_forget(struct serve *serve, struct request *request);
/** Ends a job; NULL: nobody waits for it any more. */
struct request *decoder_take(struct serve *serve, uint64_t id);

/** Requests that wait for ingest. */
uint32_t decoder_n_waiting(const struct serve *serve);
/** Ingest is ready: everything that waits goes (again). */
void decoder_resume(struct serve *serve);
/** Ingest died: who has been with two of them is given up. */
void decoder_lost(struct serve *serve);
/** A Decoded with its memfd (-1: none). Takes nothing. */
void decoder_decoded(struct serve *serve, const Kamen__Decoded *decoded, int fd);
void decoder_refused(struct serve *serve, const Kamen__Refused *refused);

#endif
