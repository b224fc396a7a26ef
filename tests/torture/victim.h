/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_TORTURE_VICTIM_H
#define KAMEN_TORTURE_VICTIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/** The daemon that is tortured: of its own folder, model, configuration and log. */
struct victim {
	char dir[64];
	pid_t pid, ingest;
	int pidfd;
	bool has_group; /* its gid is called kamen where it lives: who has it may use data.sock */
};

/** What it holds. */
struct holding {
	unsigned n_fds;
	uint64_t anonymous; /* bytes that it has itself, shared memory left out */
};

/** uid: whom it is to be; (uid_t)-1: who we are. 0, or a negative errno after a line on stderr. */
int victim_start(struct victim *victim, const char *program, uid_t uid, int timeout_ms);
bool victim_is_alive(const struct victim *victim);
/** Of serve and of ingest. */
int victim_holding(const struct victim *victim, struct holding *ret_holding);
/** Ends it as systemd would. Its exit status, or -ETIMEDOUT: it had to be killed. */
int victim_stop(struct victim *victim, int timeout_ms);
/** Whether a sanitizer has written into its log. */
bool victim_is_unsound(const struct victim *victim);
/** Copies the log's end to stderr. */
void victim_tell(const struct victim *victim);
void victim_remove(struct victim *victim);
/** Whether any user may get as far as that file. */
bool victim_is_reachable(const char *path);

#endif
