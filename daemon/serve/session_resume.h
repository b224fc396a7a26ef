/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_SESSION_RESUME_H
#define KAMEN_SERVE_SESSION_RESUME_H

#include "serve/handover.h"

struct serve;
struct session;

/** After its Welcome: gives it a number. systemd gets copies of its descriptors once it has lived. */
void session_store(struct session *session);
/** One that waits_for_store has submitted something: it may have them now. */
void session_asks(struct session *session);
/** It has ended. One that has no number is fine. */
void session_forget(struct session *session);
/** All that the next serve needs of all sessions. The descriptors stay theirs. 0 or -ENOMEM. */
int sessions_list(struct serve *serve, struct handed **ret_items, uint32_t *ret_n);
/** Takes over what the serve before has left, and runs again what it owed an answer. */
void sessions_resume(struct serve *serve);
/** Tells the client where its results are now. False: the session is gone. */
bool session_tell(struct session *session);

#endif
