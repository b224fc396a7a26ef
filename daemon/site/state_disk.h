/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SITE_STATE_DISK_H
#define KAMEN_SITE_STATE_DISK_H

#include "site/state.h"

/**
 * The disk under state.db, for another thread to wait for. While there is one, state_commit() of a
 * batch only writes: nothing of it is accepted before a state_disk_sync() that began afterwards has
 * returned 0. All other verbs are durable when they return, as ever. And the log is written back to
 * the database by state_disk_checkpoint() alone.
 */
struct state_disk;

int state_disk_open(struct state_disk **ret_disk, struct state *state, struct diag *diag);
/** Before its state; from then on batches are synced by state_commit() again. */
void state_disk_free(struct state_disk *disk);
static inline void state_disk_freep(struct state_disk **disk)
{
	state_disk_free(*disk);
}

/* ---- by one thread at a time, which need not be the state's */
/** A failure is for good: what the disk has of the batches before is not known. */
int state_disk_sync(const struct state_disk *disk);
int state_disk_checkpoint(struct state_disk *disk);

/* ---- the state's thread */
/** The log has grown so that state_disk_checkpoint() is due. */
bool state_disk_is_due(const struct state_disk *disk);

#endif
