/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SITE_HARD_LIST_H
#define KAMEN_SITE_HARD_LIST_H

#include "engine.h"

/** How hard a site's image is for the version that a round has made, as the learner tells serve. */
struct hard_image {
	struct digest hash; /* of its content, as in a manifest */
	float hardness; /* larger is harder; has no unit, and means nothing for another version */
};

/** Written by the learner, lines "HASH NUMBER", read by serve. */
struct hard_list {
	struct hard_image *images;
	uint32_t n, size;
};

/** It goes into state.db in parts (serve/hard_store.h). */
#define HARD_LIST_MAX 4096u
#define HARD_LIST_MAX_BYTES ((size_t)HARD_LIST_MAX * 96)

/** @return 0, -EINVAL: not a finite number, -EFBIG: HARD_LIST_MAX are there, -ENOMEM */
int hard_list_add(struct hard_list *list, const struct digest *hash, float hardness);
/** *ret_text malloc'ed. */
int hard_list_write(const struct hard_list *list, char **ret_text, size_t *ret_n_chars);
/** -EBADMSG: the whole list is refused. */
int hard_list_read(struct hard_list *ret_list, const char *text, size_t n_chars);
void hard_list_done(struct hard_list *list);

#endif
