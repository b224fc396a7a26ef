/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMENCTL_LABELS_H
#define KAMENCTL_LABELS_H

#include "base/digest.h"
#include "cli.h"
#include "images.h"

#define LABELS_NONE UINT32_MAX

/** What a person says of one file. */
struct labelled {
	char *path;
	uint32_t of;   /* index into classes, LABELS_NONE: of no class any more */
	uint32_t line; /* where it stands in the list, 0: it was named otherwise */
	struct digest hash;
};

/** Images with their classes. */
struct labels {
	struct labelled *rows;
	char **classes;
	size_t n, room;
	uint32_t n_classes;
	const char *list; /* the file that lines are of; borrowed */
};

/* Every one returns EXIT_DONE, or a status: the error was said. */

/** Adds a file, or a folder's files, as one class; NULL: of none any more. */
int labels_add(const struct ctl *ctl, struct labels *labels, const char *path, const char *name);
/** Adds a folder of folders, whose names are the classes. */
int labels_add_folders(const struct ctl *ctl, struct labels *labels, const char *root);
/** Adds the lines PATH,CLASS of a file; paths are relative to its folder. labels_csv.c */
int labels_add_csv(const struct ctl *ctl, struct labels *labels, const char *path);
/** Adds one file; path is copied. */
int labels_put(const struct ctl *ctl, struct labels *labels, const char *path, const char *name,
	uint32_t line);
/**
 * Hashes the files; one content named twice counts once. Refuses what has two classes. Then the
 * classes take turns: a site holds out blocks of time, which should have some of each.
 */
int labels_identify(const struct ctl *ctl, struct labels *labels);
void labels_done(struct labels *labels);

#endif
