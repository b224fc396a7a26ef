/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_BASE_CPU_H
#define KAMEN_BASE_CPU_H

#include <stdbool.h>

/** Whether this CPU has what a kernel was compiled for: avx2 (and fma, which has come with it), avx512f,
 * avx512bw, avx512vbmi2 (and avx512vl, likewise); NULL: nothing. */
bool cpu_has(const char *feature);

/** The first row of a family's table that runs here. Its last real row has cpu NULL, the reference. */
#define cpu_fastest(impls) \
	({ \
		__typeof__(&(impls)[0]) impl_ = (impls); \
\
		while (!cpu_has(impl_->cpu)) \
			impl_++; \
		impl_; \
	})

#endif
