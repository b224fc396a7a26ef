/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_NEED_H
#define KAMEN_SERVE_NEED_H

#include <stdbool.h>

struct serve;

/** Looks whose round should begin by itself: when something has happened, and when the clock says. */
int need_open(struct serve *serve);
void need_close(struct serve *serve);
/** There are new images, drift, other settings: looks within a second. */
void need_soon(struct serve *serve);
/** Begins the round of the site that needs it most, as the queue's first. @return whether it did */
bool need_begin(struct serve *serve);

#endif
