/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SITE_MANIFEST_H
#define KAMEN_SITE_MANIFEST_H

#include "site/classes.h"

/*
 * What a round learns from and is judged on: lines "L|H hash blob", sorted by hash, where the image
 * has a label with a tab and its class behind. Written by serve when the round begins, read by the
 * learner.
 */
struct manifest_entry {
	struct digest hash;
	char blob[128]; /* file name in the site's replay folder */
	bool held;
	uint32_t label; /* 1 + index into the manifest's classes; 0: none */
};

struct manifest {
	struct manifest_entry *entries;
	uint32_t n, size;
	struct classes classes;
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
/** Of parts, hashes and classes, in order; file names do not matter. */
struct digest manifest_digest(const struct manifest *manifest);

#define MANIFEST_MIN_CLASSES 2u
#define MANIFEST_MIN_OF_CLASS 5u /* images to learn a class from */
/**
 * The classes that can be learnt from a manifest: those with MANIFEST_MIN_OF_CLASS labelled images
 * that are not held out; the images of others count as unlabelled.
 *
 * @param ret_labels  (n) class of each entry, CLASSES_NONE: held out, or of none; malloc'ed
 * @return how many classes, MANIFEST_MIN_CLASSES or more; -ENODATA: fewer, diag says what there is
 */
int manifest_learnt_labels(
	const struct manifest *manifest, uint32_t **ret_labels, struct diag *diag);
/** Each entry's label by the numbers of classes_number(). labels (n) */
void manifest_labels(const struct manifest *manifest, const uint32_t *numbers, uint32_t *labels);
void manifest_done(struct manifest *manifest);

#endif
