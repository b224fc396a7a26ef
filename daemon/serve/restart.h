/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_RESTART_H
#define KAMEN_SERVE_RESTART_H

#include <systemd/sd-event.h>

#include "engine.h"

struct serve;

/*
 *   NONE -> LEARNER -> PAUSED --execve()--> another program, same process
 *                        `---- failed ----> NONE
 *
 * LEARNER: it saves its round, while everybody is served. PAUSED: nothing is taken any more, and
 * what is being computed is answered; the rest waits for the next program (session_resume.h).
 */
enum restart_phase { RESTART_NONE, RESTART_LEARNER, RESTART_PAUSED };

struct restart {
	enum restart_phase phase;
	sd_event_source *timer, *look;
	uint64_t paused_ns;
	struct control_client *client; /* who asked, or NULL */
	uint64_t id;
};

/** Begins to replace this program by the one that its path names now. -EBUSY: it does already, ... */
int restart_begin(struct serve *serve, struct diag *diag);
/** Something has ended that it may wait for. */
void restart_look(struct serve *serve);
/** The daemon ends instead. */
void restart_cancel(struct serve *serve);

#endif
