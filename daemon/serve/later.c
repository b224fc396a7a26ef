/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/later.h"

#include <stddef.h>

#include "serve/limits.h"
#include "serve/quota.h"

void later_init(struct later *later, enum later_what what)
{
	*later = (struct later){ .what = what };
	later->tail = &later->head;
}

bool later_waits(const struct later *later)
{
	return later->head;
}

static uint64_t *turn_of(struct later *later, const struct later_item *item)
{
	return item->user ? &item->user->turns[later->what] : &later->turn_of_nobody;
}

void later_add(struct later *later, struct later_item *item)
{
	uint64_t *turn = turn_of(later, item);

	if (item->waits)
		return;
	/* Turns that were not taken while there was nothing to do are not made up for. */
	if (*turn < later->turn)
		*turn = later->turn;
	item->waits = true;
	item->next = NULL;
	*later->tail = item;
	later->tail = &item->next;
}

void later_forget(struct later *later, struct later_item *item)
{
	struct later_item **at = &later->head;

	if (!item->waits)
		return;
	while (*at != item)
		at = &(*at)->next;
	*at = item->next;
	if (later->tail == &item->next)
		later->tail = at;
	item->next = NULL;
	item->waits = false;
}

/* NULL for table: whatever they have had. */
static struct later_item *take(struct later *later, const struct quota_table *table, uint64_t now)
{
	struct later_item *next = NULL;

	for (struct later_item *item = later->head; item; item = item->next) {
		if (table && quota_turn_at(table, item->user, now) > now)
			continue;
		if (!next || *turn_of(later, item) < *turn_of(later, next))
			next = item;
	}
	if (!next)
		return NULL;
	later->turn = (*turn_of(later, next))++;
	later_forget(later, next);
	return next;
}

struct later_item *later_take(struct later *later)
{
	return take(later, NULL, 0);
}

uint64_t later_due(const struct later *later, const struct quota_table *table, uint64_t now)
{
	uint64_t due = UINT64_MAX;

	for (struct later_item *item = later->head; item && due > now; item = item->next) {
		uint64_t at = quota_turn_at(table, item->user, now);

		due = at < due ? at : due;
	}
	return due;
}

void later_run(struct later *later, const struct quota_table *table, uint64_t now, bool was_event)
{
	struct later_item *next;

	if (!later->head) {
		later->n_events = 0;
		return;
	}
	if (was_event && ++later->n_events < SERVE_LATER_EVENTS)
		return;
	later->n_events = 0;
	next = take(later, table, now);
	if (next)
		next->run(next->owner);
}
