/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_OPS_OPENMP_H
#define KAMEN_OPS_OPENMP_H

#include <stdbool.h>
#include <stdint.h>

/**
 * Gives this process the OpenMP settings of its role by executing itself once more: libgomp reads
 * its variables when it is loaded, before main(). What the user set stays. Serving spins for some
 * ten microseconds before it sleeps; the learner (passive) never spins.
 *
 * @param cpus     that this process is to keep to (cpus.h), before they are counted; "": all. Where it
 *                 may use none of them it is told in the log, and they are left as they are
 * @param threads  0: as many as this process has CPUs
 * @return 0: they are set; a negative errno; does not return where it executes
 */
int openmp_set_up(const char *role, const char *cpus, uint32_t threads, bool passive, char **argv);
/** Whether openmp_set_up() has put this NAME=VALUE into the environment. */
bool openmp_is_ours(const char *variable);

#endif
