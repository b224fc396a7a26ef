/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_BENCH_UNTRAINED_H
#define KAMEN_BENCH_UNTRAINED_H

#include "base/diag.h"

/** A seeded untrained ViT of this name as a file: times are a trained one's, answers mean nothing. */
int untrained_write(const char *name, const char *path, struct diag *diag);

#endif
