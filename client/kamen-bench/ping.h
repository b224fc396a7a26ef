/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_BENCH_PING_H
#define KAMEN_BENCH_PING_H

#include <stdbool.h>
#include <stdint.h>

#include "samples.h"

/**
 * Two threads on two CPUs that hand a cache line to and fro and do nothing else: what no exchange
 * between two programs can be faster than.
 *
 * @param n_samples  of PING_TRIPS round trips each, in microseconds a trip
 * @return 0, -ENODEV: there are no two CPUs, or a negative errno
 */
int ping_run(uint32_t n_samples, struct samples *samples);

#define PING_TRIPS 20u

/** The two CPUs. @return false: there are no two */
bool ping_cpus(int ret_cpus[2]);

#endif
