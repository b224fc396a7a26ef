/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_INGEST_SPOOL_H
#define KAMEN_INGEST_SPOOL_H

#include "ingest/admission.h"
#include "ingest/spool_reader.h"

/*
 * A site's spool folder. Its contract: write under a name that begins with '.' or '_' or ends in
 * .tmp or .part, then rename. What was accepted, or was known already, moves to done/; what is no
 * image, or no plain file, to bad/ beside a NAME.reason; folders are nobody's business.
 *
 * inotify says that something came; a scan finds what it missed: every two seconds, and once a
 * minute where the folder is empty and on a file system that only this machine writes to.
 */
struct spool;

int spool_new(struct spool **ret_spool, struct ingest *ingest, struct ingest_site *site);
/** Not before its last job has ended. */
void spool_free(struct spool *spool);

/** Starts reading what there is room for. */
void spool_pump(struct spool *spool);
/** The reader's answer to one file of any spool. */
void spool_read_done(struct spool_read *read);

/** AGAIN: we are short of something, and the whole spool waits; NEXT_SCAN: only this file does. */
enum spool_end { SPOOL_DONE, SPOOL_BAD, SPOOL_AGAIN, SPOOL_NEXT_SCAN };
/** The end of a spool's job, before arrival_free(). */
void spool_end(struct arrival *job, enum spool_end end, const char *reason);
/**
 * The decoder has failed with code. A shortage ends by itself, and a worker may die for another's
 * fault: such a file stays for another try, a few times.
 *
 * @return whether it stays, which is the end of the spool's job; false: the file is bad
 */
bool spool_retry(struct arrival *job, int code, const char *reason);
/** The file's name, printable. */
const char *spool_arrival_name(const struct arrival *job);

#endif
