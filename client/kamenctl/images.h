/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMENCTL_IMAGES_H
#define KAMENCTL_IMAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Files in the order of their paths. */
struct images {
	char **paths;
	uint32_t *labels; /* where asked for: the folder directly below the root */
	char **classes;   /* names of the labels, sorted */
	size_t n, room;
	uint32_t n_classes;
	uint64_t max_bytes; /* of the largest */
};

enum images_part { PART_ALL, PART_LEARN, PART_HELD };

/** "all", "learn" or "held"; false: none of them. */
bool images_part_parse(const char *text, enum images_part *ret_part);

/**
 * Adds a file, or a folder's files with their subfolders, but for names that begin with _ or `.`.
 * A part other than ALL reads every file for its hash.
 *
 * @return 0 or a negative errno of path
 */
int images_add(struct images *images, const char *path, enum images_part part);
void images_sort(struct images *images);
/** Labels by folder: the name of the first component below root. -EINVAL: files outside folders. */
int images_label(struct images *images, const char *root);
void images_done(struct images *images);

#endif
