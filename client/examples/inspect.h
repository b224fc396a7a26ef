/* SPDX-License-Identifier: Apache-2.0 */
#ifndef EXAMPLE_INSPECT_H
#define EXAMPLE_INSPECT_H

#include <stdbool.h>
#include <stdint.h>

#include "kamen/kamen.h"

/* Files to be inspected for one site: what the examples have in common. Their loops differ. */
struct inspection {
	struct kamen_client *client;
	const char *site;
	char **paths;
	int n, next, n_waiting; /* files, of these handed over, of these not yet answered */
	int r;                  /* what went wrong, as a negative errno */
};

/** Takes the program's arguments: SITE FILE... @return 0, or the status to exit with */
int inspection_begin(struct inspection *inspection, int argc, char **argv);
/**
 * Everything that can be done without waiting: takes what has arrived, prints it, submits more.
 *
 * @return whether there is more to wait for, until *ret_deadline_ns (UINT64_MAX: no matter)
 */
bool inspection_turn(struct inspection *inspection, uint64_t *ret_deadline_ns);
/** @return the status to exit with */
int inspection_end(struct inspection *inspection);

/** CLOCK_MONOTONIC, as all times of libkamen. */
uint64_t inspection_now_ns(void);

#endif
