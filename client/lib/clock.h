/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_CLIENT_CLOCK_H
#define KAMEN_CLIENT_CLOCK_H

#include <stdint.h>
#include <time.h>

#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)

static inline uint64_t clock_now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

/** For ever where the sum would not fit. */
static inline uint64_t clock_after(uint64_t ns, uint64_t more_ns)
{
	return more_ns > UINT64_MAX - ns ? UINT64_MAX : ns + more_ns;
}

#endif
