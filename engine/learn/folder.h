/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_FOLDER_H
#define KAMEN_LEARN_FOLDER_H

#include "image/image.h"
#include "learn/round.h"

/** The parts of contract.md, eval. */
enum folder_part { FOLDER_ALL, FOLDER_LEARN, FOLDER_HELD };

/**
 * Images of a folder, decoded into memory; a folder of class folders gives every image its class.
 * Names starting with '_' or '.' are skipped, so is what is no image. For tests, benchmarks and
 * measurements; the daemon has its replay store.
 */
struct folder {
	struct image **images; /* by digest of their files */
	uint32_t *labels;      /* class of each image: index into names */
	uint32_t n;
	char **names; /* of the class folders, sorted; the root itself is "" */
	uint32_t n_names;
	struct digest manifest;
};

/**
 * @param max_shorter  shrink images whose shorter side is larger; 0: keep them
 * @return 0, -ENOENT, ... with the path in diag; -ENODATA: no image in it
 */
int folder_open(struct folder **ret_folder, const char *path, enum folder_part part,
	uint32_t max_shorter, struct diag *diag);
void folder_free(struct folder *folder);
DEFINE_CLEANUP(struct folder *, folder_free)

/** The folder as a source, in the order of the images' digests. */
struct image_source folder_source(struct folder *folder);

#endif
