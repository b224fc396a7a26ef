/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_LATER_H
#define KAMEN_SERVE_LATER_H

#include <stdbool.h>
#include <stdint.h>

struct quota_table;
struct quota_user;

/** What users take turns at. */
enum later_what {
	LATER_LOOP,    /* sessions that have had their share of the loop and have more */
	LATER_READING, /* requests that are read in parts (reading.h) */
	LATER_FORWARD, /* images that wait for inference (scheduler.c, under its lock) */
	N_LATER,
};

/**
 * What is done while nothing else waits, or one after the other. Users take turns, ingest as one of
 * them; of one user who came first is first. sd-event's own priorities would let some starve, and of
 * two sources that are always pending it takes the older one for ever.
 */
struct later_item {
	struct later_item *next;
	struct quota_user *user; /* NULL: ingest */
	void (*run)(void *owner);
	void *owner;
	bool waits; /* it is here */
};

struct later {
	enum later_what what;
	struct later_item *head, **tail; /* by arrival */
	uint64_t turn, turn_of_nobody;   /* of who had the last one; ingest's */
	unsigned n_events;               /* since then */
};

void later_init(struct later *later, enum later_what what);
bool later_waits(const struct later *later);
/** When the first of them may go on (quota_turn_at()), UINT64_MAX: none waits. */
uint64_t later_due(const struct later *later, const struct quota_table *table, uint64_t now);
/** Nothing where it waits already. */
void later_add(struct later *later, struct later_item *item);
/** Nothing where it does not wait. */
void later_forget(struct later *later, struct later_item *item);
/** Whose turn it is, whatever it has had; it does not wait any more. NULL: nobody's. */
struct later_item *later_take(struct later *later);
/**
 * After each iteration of the loop, with whether it has dealt with an event: runs the next one that
 * may go on while no event waits, and after every few events all the same, because somebody can
 * always make events.
 */
void later_run(struct later *later, const struct quota_table *table, uint64_t now, bool was_event);

#endif
