/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_SELECTION_H
#define KAMEN_SERVE_SELECTION_H

#include <stdbool.h>
#include <stdint.h>

#include "engine.h"

struct request;
struct serve;

/**
 * Pins the snapshot that an INFER names by version, size or space; leaves request->serving NULL for
 * one that takes the champion as it is when its turn comes.
 *
 * @return 0, -ESTALE: neither the champion nor its predecessor has the space, -EACCES: a size that
 *         only admins may ask for, -ENOENT, -EINVAL (diag)
 */
int selection_make(struct serve *serve, struct request *request, struct diag *diag);
/** Every size costs plans and time: who is no admin gets the site's and the model's own. */
bool selection_allows_px(uint32_t px, uint32_t site_px, uint32_t native_px, bool may_admin);

#endif
