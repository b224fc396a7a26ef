/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_BENCH_SITE_MASKS_H
#define KAMEN_BENCH_SITE_MASKS_H

#include <stdint.h>

#include "cli.h"

/** A random mask of its own for each of some sites that have an image each. */
struct site_masks {
	char (*names)[64]; /* (n) */
	uint32_t n;
	double density;
	uint32_t *versions; /* (n), written: what to ask the sites for; the gate may have held it */
	uint64_t coded_bytes; /* written: of the masks as files */
};

/** Imports them and waits until the learner has judged the last. EXIT_DONE or a status, said. */
int site_masks_give(struct ctl *ctl, struct site_masks *masks);

#endif
