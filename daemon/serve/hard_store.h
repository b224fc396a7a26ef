/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_HARD_STORE_H
#define KAMEN_SERVE_HARD_STORE_H

#include <systemd/sd-event.h>

#include "site/hard_list.h"

struct hard_task;
struct serve;
struct site;

/**
 * How hard images are for a version, on its way into state.db: thousands of rows, some at a time, so
 * that the loop is not held. They are durable with the group commits; a kill in between leaves some.
 */
struct hard_store {
	struct hard_task *head; /* in the order in which they came */
	sd_event_source *timer;
};

/** Takes what the list holds. */
void hard_store_take(struct serve *serve, struct site *site, struct hard_list *list);
/** Some of it is not there yet: what of the site's images may go cannot be said. */
bool hard_store_waits(const struct serve *serve, const struct site *site);
/** All that is left of it at once: somebody asks, or the daemon ends. */
void hard_store_finish(struct serve *serve);
void hard_store_close(struct serve *serve);

#endif
