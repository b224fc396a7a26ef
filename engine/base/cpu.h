/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_BASE_CPU_H
#define KAMEN_BASE_CPU_H

#include <stdbool.h>

/** Whether this CPU has what a kernel was compiled for: avx2 (and fma, which has come with it), avx512f,
 * avx512bw; NULL: nothing. */
bool cpu_has(const char *feature);

#endif
