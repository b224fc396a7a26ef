/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_READING_H
#define KAMEN_SERVE_READING_H

#include "serve/request.h"

/**
 * Requests of whose bytes the loop itself reads many: large echoes, and large images that are copied
 * for ingest. It reads them in parts, after whatever else waits, and users take turns: nobody holds
 * the loop by the size of a frame.
 */
struct reading {
	struct request *head, **tail;
	sd_event_source *source;
	uint64_t turn; /* of the part that was read last */
};

void reading_init(struct reading *reading);
/** From now on the request is here, until its bytes are read or it is forgotten. 0 or -ENOMEM... */
int reading_start(struct serve *serve, struct request *request);
void reading_forget(struct serve *serve, struct request *request);
void reading_close(struct reading *reading);

#endif
