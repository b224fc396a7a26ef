/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_OPS_CPUS_H
#define KAMEN_OPS_CPUS_H

#include <sched.h>
#include <stdbool.h>

#include "engine.h"

/** A list of CPUs, e.g. "0-3,8" (cpuset(7), List format). False: not one. */
bool cpus_parse(const char *text, cpu_set_t *ret_cpus);

/**
 * Of a list what this process may run on; "": all of that.
 *
 * @return 0, -EINVAL: not a list, -ENODEV: none of them (diag)
 */
int cpus_allowed(const char *text, cpu_set_t *ret_cpus, struct diag *diag);

/** Keeps this thread, and those that it starts, to a list. Errors as above, and EPERM and the like. */
int cpus_keep_to(const char *text, struct diag *diag);

/** Share number i of n, NUMA node after node (/sys/devices/system/node), and in a node by number. With
 * fewer CPUs than shares some are shared. */
cpu_set_t cpus_share(const cpu_set_t *cpus, unsigned i, unsigned n);

#endif
