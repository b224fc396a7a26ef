/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_SHADOW_H
#define KAMEN_SERVE_SHADOW_H

#include "serve/request.h"
#include "serve/sites.h"

/*
 * A candidate that runs beside the champion on a sample of the live requests and answers none.
 *
 *   loop --(with its request)--> inference thread: the champion answers, then the prepared input is
 *   copied --(while nothing waits)--> the candidate's forward of one image --> loop: counted
 *
 * At most SHADOW_MAX samples exist; where there is no idle time, requests go without one. A request
 * that comes while a candidate's image is computed waits for the rest of that one image.
 */
#define SHADOW_MAX 8u

/** Made and freed by the loop; the inference thread's from its request's batch until it is back. */
struct shadow_sample {
	struct site *site;       /* referenced */
	struct serving *serving; /* the candidate; referenced */
	struct shadow_sample *next;
	size_t n_input;
	float *input; /* (3, px, px) as the champion saw it */
	uint32_t at;  /* image of the batch */
	uint32_t champion;
	struct answer theirs, ours;
	float *embedding;   /* (width) the champion's */
	bool is_comparable; /* the two embeddings: no cascade is among them */
	double cosine;      /* NAN: they are not */
	bool is_done;
};

struct serve;

/** What runs beside the champion from now on: the newest candidate, where the policy says so. */
void shadow_choose(struct serve *serve, struct site *site);
/** A request on its way to its champion takes a sample along, or does not. */
void shadow_draw(struct serve *serve, struct request *request);
/** Of a request that never came to its batch. NULL is fine. */
void shadow_free(struct serve *serve, struct shadow_sample *sample);
/** Counts what came back, and frees it. */
void shadow_reap(struct serve *serve);
/** The figures so far, also those that state.db does not have yet. */
void shadow_overlay(const struct site *site, struct version_row *row);
/** Stores them; the loop ends, or another candidate takes its place. */
void shadow_stop(struct serve *serve, struct site *site);

#endif
