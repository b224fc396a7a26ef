/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_DAEMON_ROLE_H
#define KAMEN_DAEMON_ROLE_H

#include "ops/config.h"

/*
 * One binary, three roles. `kamend` is serve; it starts `kamend --role=ingest` and
 * `--role=learner` by posix_spawn, each with one end of a SOCK_SEQPACKET pair (RoleMessage,
 * kamen.proto) as descriptor ROLE_SOCKET, the configuration as serve has accepted it as ROLE_CONFIG
 * and, for the learner, the sealed base as ROLE_BASE. A role ends when its socket reads end-of-file: it never outlives serve.
 */
#define ROLE_SOCKET 3
#define ROLE_BASE 4
#define ROLE_CONFIG 5 /* sealed memfd, the text of a kamend.conf */

/** Each runs the role's event loop to its end and returns the process's exit status. */
/* self: program of the roles, and of serve itself when it restarts, with argv. Signals must have been blocked in every thread. */
int serve_main(const struct config *config, const char *self, char *const *argv);
/**
 * Serve reads its signals from a descriptor. Libraries may start threads before main(): those have
 * them blocked only if they were so when the program was executed, so call this before
 * openmp_set_up() executes it once more.
 */
void serve_block_signals(void);
int ingest_main(const struct config *config);
int learner_main(const struct config *config);

#endif
