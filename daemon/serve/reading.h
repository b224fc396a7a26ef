/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_READING_H
#define KAMEN_SERVE_READING_H

#include "serve/request.h"

/*
 * Requests of whose bytes the loop itself reads many: large echoes, and large images that are copied
 * for ingest. It reads them in parts, each a turn of their user's (later.h): nobody holds the loop by
 * the size of a frame.
 */

/** From now on the request is read, until that is done or it is forgotten. 0 or -ENOMEM... */
int reading_start(struct serve *serve, struct request *request);
void reading_forget(struct serve *serve, struct request *request);

#endif
