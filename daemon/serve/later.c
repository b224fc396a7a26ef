/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/later.h"

#include "serve/limits.h"
#include "serve/serve.h"

void later_init(struct later *later)
{
	*later = (struct later){ .head = NULL };
	later->tail = &later->head;
}

bool later_waits(const struct serve *serve)
{
	return serve->later.head || serve->reading.head;
}

/* user: NULL: ingest, whose turns are counted as those of any user. */
static uint64_t *turn_of(struct later *later, struct quota_user *user)
{
	return user ? &user->later_turn : &later->turn_of_nobody;
}

void later_add(struct session *session)
{
	struct later *later = &session->serve->later;
	uint64_t *turn = turn_of(later, session->user);

	if (session->comes_back)
		return;
	/* Turns that were not taken while there was nothing to do are not made up for. */
	if (*turn < later->turn)
		*turn = later->turn;
	session->comes_back = true;
	session->later_next = NULL;
	*later->tail = session;
	later->tail = &session->later_next;
}

void later_forget(struct session *session)
{
	struct later *later = &session->serve->later;
	struct session **at = &later->head;

	if (!session->comes_back)
		return;
	while (*at != session)
		at = &(*at)->later_next;
	*at = session->later_next;
	if (later->tail == &session->later_next)
		later->tail = at;
	session->later_next = NULL;
	session->comes_back = false;
}

static void run_session(struct later *later)
{
	struct session *next = later->head;

	for (struct session *s = later->head; s; s = s->later_next)
		if (*turn_of(later, s->user) < *turn_of(later, next->user))
			next = s;
	later->turn = (*turn_of(later, next->user))++;
	later_forget(next);
	session_turn(next);
}

void later_run(struct serve *serve, bool was_event)
{
	struct later *later = &serve->later;

	if (!later_waits(serve)) {
		later->n_events = 0;
		return;
	}
	if (was_event && ++later->n_events < SERVE_LATER_EVENTS)
		return;
	later->n_events = 0;
	later->was_read = serve->reading.head && (!later->was_read || !later->head);
	if (later->was_read)
		reading_run(serve);
	else
		run_session(later);
}
