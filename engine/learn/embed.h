/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_EMBED_H
#define KAMEN_LEARN_EMBED_H

#include "learn/round.h"

/** At most n_max images of another source, evenly spaced. The other must outlive it. */
struct embed_subset {
	const struct image_source *whole;
	uint32_t n;
};
struct image_source embed_subset_source(
	struct embed_subset *subset, const struct image_source *whole, uint32_t n_max);

#endif
