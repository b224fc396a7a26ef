/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_BENCH_SITES_H
#define KAMEN_BENCH_SITES_H

#include <stdint.h>
#include <sys/types.h>

#include "cli.h"

/** Processes of the daemon; 0: is not there. */
struct sites_roles {
	pid_t serve, learner;
};

/** What new versions are served in, "f32" or "bf16", and who does what. EXIT_DONE or a status, said. */
int sites_daemon(struct ctl *ctl, char ret_precision[8], struct sites_roles *ret_roles);

/** Makes n sites named bench-PID-i that nothing feeds. EXIT_DONE or a status, said. */
int sites_create(struct ctl *ctl, uint32_t n, uint32_t input_px, char (*ret_names)[64]);
/** Begins a round that nobody waits for, long enough to outlast a measurement. */
int sites_learn(struct ctl *ctl, const char *name);
/** Deletes them; says nothing. */
void sites_delete(struct ctl *ctl, uint32_t n, char (*names)[64]);

#endif
