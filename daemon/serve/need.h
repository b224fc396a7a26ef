/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_NEED_H
#define KAMEN_SERVE_NEED_H

#include <stdbool.h>

struct serve;

/** Looks every second whose round should begin by itself. */
int need_open(struct serve *serve);
void need_close(struct serve *serve);
/** Begins the round of the site that needs it most, as the queue's first. @return whether it did */
bool need_begin(struct serve *serve);

#endif
