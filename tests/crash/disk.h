/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_TESTS_CRASH_DISK_H
#define KAMEN_TESTS_CRASH_DISK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * A disk that forgets. Programs under the shim (shim.c) work in a root folder as always; beside it a
 * shadow folder holds what a power cut would leave at least:
 *
 *   shadow/control  struct disk_control, mapped by every process
 *   shadow/iINODE   a file's bytes at its last fsync
 *   shadow/dINODE   a folder's entries at its last fsync, lines "f|d INODE NAME"
 *   shadow/grave/   whatever was unlinked or replaced, so that no inode's number comes again
 *
 * It is strict: fsync of a file keeps its bytes and not its name, a name is kept by fsync of its
 * folder. What lies in root and shadow must be on one file system.
 */
struct disk_control {
	_Atomic uint32_t lock, is_dead;
	_Atomic uint64_t n_points; /* fsync, fdatasync, rename, unlink: so far */
	_Atomic uint64_t stop_at;  /* before this one the process group is killed; 0: never */
};

/** What of that which no fsync has promised is there after the cut. */
enum disk_loss {
	DISK_DROP,  /* nothing */
	DISK_NAMES, /* every name, no bytes */
	DISK_MIX,   /* of each folder by a coin, of each file page by page */
	DISK_KEEP,  /* everything: as after kill -9 */
	DISK_N,
};
extern const char *const disk_loss_names[DISK_N + 1];

/** Takes all that root holds as durable; empties the shadow; the next point is number 1. */
int disk_settle(const char *root, const char *shadow, uint64_t stop_at);
/** How many points there were since. */
uint64_t disk_points(const char *shadow);
/** Makes the folder `to` (which must not exist) what a cut now would leave of root. */
int disk_rebuild(
	const char *root, const char *shadow, const char *to, enum disk_loss loss, uint64_t seed);

/** Removes a folder and what is in it; what is not there is no error. */
int disk_remove(const char *path);

/** Keeps a file's bytes or a folder's names, as they are now. */
int disk_record(const char *shadow, int fd);
int disk_map(struct disk_control **ret_control, const char *shadow);

/** Switches the shim of this process on, as KAMEN_CRASH_ROOT and KAMEN_CRASH_SHADOW do at start. */
int disk_shim_arm(const char *root, const char *shadow);
/** Makes fsync cost nothing where nothing depends on it. */
void disk_shim_skip_fsync(void);

#endif
