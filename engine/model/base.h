/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_MODEL_BASE_H
#define KAMEN_MODEL_BASE_H

#include "base/digest.h"
#include "model/safetensors.h"

/** The frozen model file: a sealed memfd that every process maps, its digest, its tensors. */
struct base;

/**
 * Reads a safetensors file once into a memfd sealed against any change (SHRINK, GROW, WRITE, SEAL),
 * hashing on the way.
 *
 * @return 0, -EBADMSG: damaged or inconsistent file (diag names tensor and field), -ENOENT, ...
 */
int base_load(struct base **ret_base, const char *path, struct diag *diag);
/** Maps a memfd that base_load() of another process made. Takes fd on success. The digest is
 * computed again.
 * @return 0, -EPERM: not sealed, -EBADMSG as above */
int base_from_fd(struct base **ret_base, int fd, struct diag *diag);
void base_free(struct base *base);
DEFINE_CLEANUP(struct base *, base_free)

int base_fd(const struct base *base);
const struct digest *base_digest(const struct base *base);
const struct safetensors *base_tensors(const struct base *base);

#endif
