/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_INGEST_SPOOL_MOVE_H
#define KAMEN_INGEST_SPOOL_MOVE_H

#include <stdbool.h>
#include <sys/stat.h>

#include "ingest/spool_reader.h"

/** A spool folder and the two beside its files. Owns the descriptors; -1: closed. */
struct spool_move {
	int dir_fd, done_fd, bad_fd;
};

/** Opens the folder, making it, done/ and bad/ where they are missing. */
int spool_move_open(struct spool_move *move, const char *path);
void spool_move_close(struct spool_move *move);
/** Whether st is the folder that is open. */
bool spool_move_is(const struct spool_move *move, const struct stat *st);

/**
 * Moves a file to done/, or, with a reason, to bad/ beside NAME.reason. A name that is taken there
 * gets a number.
 *
 * @param identity  what was read; inode 0: nothing was
 * @return 0, -ENOENT: it is gone, -ESTALE: another file has taken the name
 */
int spool_move_file(struct spool_move *move, const char *name,
	const struct spool_identity *identity, const char *reason);

#endif
