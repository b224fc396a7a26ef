/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_EMBEDDING_H
#define KAMEN_SERVE_EMBEDDING_H

#include "serve/serving.h"
#include "site/state.h"

/*
 * Stored images that a snapshot is to look at: a site's supports, before its classes or its champion
 * change. The loop never waits for it.
 *
 *   loop --(scheduler_embed)--> inference thread: an image while nothing waits, and one now and then
 *   while something does --> loop
 */

/** How long live requests may keep it from its next image. */
#define EMBEDDING_PATIENCE_NS (100 * NS_PER_MS)

/** The loop's; the inference thread's from scheduler_embed() until it was handed back. */
struct embedding {
	struct serving *serving;   /* referenced */
	char replay[512];          /* the folder of its images */
	struct features *features; /* what is not known yet is filled in; borrowed */
	uint32_t at;               /* how many were looked at */
	uint32_t n_done, n_failed; /* of what was not known */
	struct diag diag;          /* why the first failed */
	bool is_whole;             /* to its end: not given up */
	struct embedding *next;
};

/** How many numbers a snapshot says of an image for its classes. */
uint32_t embedding_dim(const struct serving *serving);
/** The next image that is not known, or NULL at the end; counts past it. */
struct feature_row *embedding_next(struct embedding *embedding, float **ret_values);
/** Reads an image of the store, as the inference thread does. 0 or a negative errno, in diag, too. */
int embedding_read(const struct embedding *embedding, const struct feature_row *row,
	struct image **ret_image, struct diag *diag);

#endif
