/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_TORTURE_LOAD_H
#define KAMEN_TORTURE_LOAD_H

#include "world.h"

/** What this process and its children that have ended have taken so far. */
struct load load_now(void);
/** Adds what was taken since. */
void load_add(struct load *load, const struct load *since);
/** In a piece as those of the load are on average: as much of the CPU, and as long a sleep. */
void load_burn(const struct load *load);
/** CPUs that were busy with it. */
double load_cpus(const struct load *load);

#endif
