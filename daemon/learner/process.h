/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARNER_PROCESS_H
#define KAMEN_LEARNER_PROCESS_H

#include <stdint.h>

/**
 * Steps back behind serving: SCHED_IDLE where cpu is "idle"; a percentage keeps the usual priority,
 * so that it is certain, and rests in between. First in line when memory runs out; no large pages. Before
 * any other thread is made: they inherit it. What is refused is logged and lived with.
 *
 * @return the share of time to work in percent: 100 for "idle"
 */
uint32_t process_step_back(const char *cpu);
/** How long to rest after working for so long, at this percentage. */
uint64_t process_rest_ns(uint32_t percentage, uint64_t worked_ns);

#endif
