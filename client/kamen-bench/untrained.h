/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_BENCH_UNTRAINED_H
#define KAMEN_BENCH_UNTRAINED_H

#include "base/diag.h"
#include "model/base.h"

/** A seeded untrained ViT of this name as a file: times are a trained one's, answers mean nothing. */
int untrained_write(const char *name, const char *path, struct diag *diag);
/** The same, loaded. */
int untrained_load(struct base **ret_base, const char *name, struct diag *diag);

#endif
