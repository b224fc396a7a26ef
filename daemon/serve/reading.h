/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_READING_H
#define KAMEN_SERVE_READING_H

#include "ops/hand.h"
#include "serve/later.h"

struct request;
struct serve;

/*
 * Requests of whose bytes many are read: large echoes, and images that are copied for ingest. The
 * loop's hand reads them in parts, each a turn of their user's (later.h): nobody holds the loop, or
 * the others' frames, by the size of a frame.
 */
struct reading {
	struct later waiting;
	struct errand errand;    /* the part that is being read */
	struct request *request; /* of whom; NULL: none */
	int r;                   /* what came of the part: 1: that was all, 0: there is more */
};

void reading_init(struct reading *reading);
/** From now on the request is read, until that is done or it is forgotten. 0 or -ENOMEM... */
int reading_start(struct serve *serve, struct request *request);
/** False: a part of it is being read, and it comes back afterwards. */
bool reading_forget(struct serve *serve, struct request *request);

#endif
