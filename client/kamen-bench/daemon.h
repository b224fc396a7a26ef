/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_BENCH_DAEMON_H
#define KAMEN_BENCH_DAEMON_H

#include <sys/types.h>

#include "cli.h"

/** A daemon of our own: kamend from beside this program, in a temporary folder. */
struct daemon {
	pid_t pid;
	int pidfd;
	char dir[64];
	char runtime[80];
};

struct daemon_spec {
	const char *model;    /* NULL: kamend's default */
	const char *random;   /* not NULL: an untrained model of this name instead */
	const char *settings; /* text of its configuration */
};

/** Starts it and waits until it says READY. EXIT_DONE or a status, said. */
int daemon_start(const struct ctl *ctl, const struct daemon_spec *spec, struct daemon *ret_daemon);
/** Ends it, removes its folder. One that was never started is fine. */
void daemon_stop(struct daemon *daemon);

#endif
