/* SPDX-License-Identifier: Apache-2.0 */
#include <stddef.h>

#include "serve/limits.h"
#include "serve/serve.h"

static void uncount_bytes(struct session *session)
{
	session->serve->sessions.n_bytes -= session->n_bytes;
	quota_free_bytes(session->user, session->n_bytes);
	session->n_bytes = 0;
}

static void session_gone(struct session *session)
{
	session->serve->sessions.n_leaving -= session->n_leaving;
	uncount_bytes(session);
	quota_leave(&session->serve->quotas, session->user, clock_now_ns());
	session_shm_done(&session->shm);
	free(session);
}

static bool leave_some(struct errand *errand)
{
	struct session *session =
		(struct session *)((char *)errand - offsetof(struct session, leaving));

	return session_shm_done_part(&session->shm);
}

static void on_left(struct errand *errand)
{
	session_gone((struct session *)((char *)errand - offsetof(struct session, leaving)));
}

/* A client that comes back at once has its place; who comes and goes without end waits for it. */
static void leave_later(struct session *session)
{
	struct session_list *list = &session->serve->sessions;

	session->n_leaving = session->n_bytes;
	list->n_leaving += session->n_leaving;
	if (list->n_leaving <= SERVE_MAX_LEAVING_BYTES)
		uncount_bytes(session);
	session->leaving = (struct errand){ .run = leave_some, .done = on_left };
	hand_give(session->serve->hand, &session->leaving);
}

void session_leave(struct session *session)
{
	if (session->shm.frames_bytes > SERVE_UNMAP_AT_ONCE)
		leave_later(session);
	else
		session_gone(session);
}
