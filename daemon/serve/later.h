/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_LATER_H
#define KAMEN_SERVE_LATER_H

#include <stdbool.h>
#include <stdint.h>

struct quota_user;
struct serve;

/**
 * What the loop does while no event waits, and after every few events all the same, because somebody
 * can always make events: sessions that have had their share and have more, and requests that are read
 * in parts (reading.h). Users take turns, ingest as one of them; of one user who came first is first.
 * sd-event's own priorities would let some starve, and of two sources that are always pending it takes
 * the older one for ever.
 */
struct later_item {
	struct later_item *next;
	struct quota_user *user; /* NULL: ingest */
	void (*run)(void *owner);
	void *owner;
	bool waits; /* it is here */
};

struct later {
	struct later_item *head, **tail; /* by arrival */
	uint64_t turn, turn_of_nobody;   /* of who had the last one; ingest's */
	unsigned n_events;               /* since then */
};

void later_init(struct later *later);
bool later_waits(const struct serve *serve);
/** run() is called when its turn comes, once. Nothing where it waits already. */
void later_add(struct serve *serve, struct later_item *item);
/** Nothing where it does not wait. */
void later_forget(struct serve *serve, struct later_item *item);
/** After each iteration of the loop, with whether it has dealt with an event. */
void later_run(struct serve *serve, bool was_event);

#endif
