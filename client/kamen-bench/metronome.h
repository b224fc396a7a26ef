/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_BENCH_METRONOME_H
#define KAMEN_BENCH_METRONOME_H

#include <stdint.h>

#include "samples.h"

/**
 * A thread that sleeps until one moment after another and does nothing else: how late it wakes is
 * what the machine and its kernel make of any deadline.
 */
struct metronome;

/** @return 0 or a negative errno */
int metronome_start(struct metronome **ret_metronome, uint64_t period_ns);
/** Ends it. How late it woke every time, in ms, is added to late_ms. NULL is fine. @return 0 or -ENOMEM */
int metronome_stop(struct metronome *metronome, struct samples *late_ms);

#endif
