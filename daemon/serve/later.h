/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_LATER_H
#define KAMEN_SERVE_LATER_H

#include <stdbool.h>
#include <stdint.h>

struct serve;
struct session;

/**
 * What the loop does while no event waits, and after every few events all the same, because somebody
 * can always make events: sessions that have had their share and have more, and what is read in
 * parts (reading.h), by turns. sd-event's own priorities would let either starve, and of two sources
 * that are always pending it takes the older one for ever.
 */
struct later {
	struct session *head, **tail; /* by arrival; users take turns */
	uint64_t turn, turn_of_nobody;
	unsigned n_events; /* since the last of this */
	bool was_read;
};

void later_init(struct later *later);
bool later_waits(const struct serve *serve);
/** It has more: session_turn() is called. Once, or not at all where it is forgotten before. */
void later_add(struct session *session);
void later_forget(struct session *session);
/** After each iteration of the loop, with whether it has dealt with an event. */
void later_run(struct serve *serve, bool was_event);

#endif
