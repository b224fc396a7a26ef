/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SITE_MANIFEST_H
#define KAMEN_SITE_MANIFEST_H

#include "engine.h"

/*
 * What a round learns from and is judged on: lines "L|H hash blob", sorted by hash. Written by
 * serve when the round begins, read by the learner.
 */
struct manifest_entry {
	struct digest hash;
	char blob[128]; /* file name in the site's replay folder */
	bool held;
};

struct manifest {
	struct manifest_entry *entries;
	uint32_t n, size;
	int64_t last_id; /* row of the newest image */
};

int manifest_add(struct manifest *manifest, const struct manifest_entry *entry);
/**
 * Entries are in order of arrival: marks every fifth time block as held out, then sorts by hash.
 * Blocks, not single images, so that near-duplicates in a row fall on one side; those that lie
 * further apart are not judged on, which the learner sees to (learner/split.h).
 */
void manifest_split(struct manifest *manifest);
/** Text of the file; malloc'ed, with a NUL behind. */
int manifest_write(const struct manifest *manifest, char **ret_text, size_t *ret_n_chars);
/** @return 0, or -EBADMSG with the line in diag (form, order, duplicates, names), -ENOMEM */
int manifest_read(
	struct manifest *ret_manifest, const char *text, size_t n_chars, struct diag *diag);
/** Of parts and hashes, in order; file names do not matter. */
struct digest manifest_digest(const struct manifest *manifest);
void manifest_done(struct manifest *manifest);

#endif
