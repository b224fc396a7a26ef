/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_READING_H
#define KAMEN_SERVE_READING_H

#include "serve/request.h"

/**
 * Requests of whose bytes the loop itself reads many: large echoes, and large images that are copied
 * for ingest. It reads them in parts, when the loop has time (later.h), and users take turns: nobody holds
 * the loop by the size of a frame.
 */
struct reading {
	struct request *head, **tail;
	uint64_t turn, turn_of_nobody; /* of the part that was read last; ingest's */
};

void reading_init(struct reading *reading);
/** From now on the request is here, until its bytes are read or it is forgotten. 0 or -ENOMEM... */
int reading_start(struct serve *serve, struct request *request);
/** A part of one of them. */
void reading_run(struct serve *serve);
void reading_forget(struct serve *serve, struct request *request);

#endif
