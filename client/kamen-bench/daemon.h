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

/**
 * Starts it and waits until it says READY.
 *
 * @param model     NULL: kamend's default
 * @param settings  text of its configuration
 * @return EXIT_DONE or a status, said
 */
int daemon_start(
	const struct ctl *ctl, const char *model, const char *settings, struct daemon *ret_daemon);
/** Ends it, removes its folder. One that was never started is fine. */
void daemon_stop(struct daemon *daemon);

#endif
