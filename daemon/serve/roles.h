/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_ROLES_H
#define KAMEN_SERVE_ROLES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "kamen.pb-c.h"
#include "serve/packet_queue.h"

struct serve;

enum role_id { ROLE_INGEST, ROLE_LEARNER, N_ROLES };

/** One of the other two processes, kept alive with growing pauses. */
struct role {
	struct serve *serve;
	enum role_id id;
	const char *name;
	pid_t pid; /* 0: not running */
	int sock;
	bool ready, stopping;
	sd_event_source *io, *child, *pause;
	struct packet_queue out;
	uint64_t started_ns, pause_ns;
	uint32_t n_restarts;
	char backend[32], isa[32];
};

/** None runs yet. */
void roles_init(struct serve *serve);
/** Starts both (the learner only when it is on). */
int roles_start(struct serve *serve);
/** None is started again, and the learner ends: it saves its round meanwhile. */
void roles_drain(struct serve *serve);
/** That one ends, and is not started again: it saves what it has. */
void roles_end(struct serve *serve, enum role_id id);
void roles_kill(struct serve *serve);
/** After roles_stop(): both are started again. */
void roles_resume(struct serve *serve);
/** Closes their sockets, which ends them; waits a little, then kills. */
void roles_stop(struct serve *serve);
/** Queues a message, with a copy of fd (-1: none). -ENOTCONN: not running. */
int role_post(struct role *role, const Kamen__RoleMessage *message, int fd);
/** Sends bytes now or not at all. -EAGAIN: it does not keep up, -ENOTCONN, ... */
int role_offer(struct role *role, const void *data, size_t n_bytes);

#endif
