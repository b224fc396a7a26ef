/* SPDX-License-Identifier: Apache-2.0 */
#include "base/cpu.h"

#include <string.h>

bool cpu_has(const char *feature)
{
	if (!feature)
		return true;
#ifdef __x86_64__
	/* The builtin takes nothing but a literal. */
	if (strcmp(feature, "avx512vbmi2") == 0)
		return __builtin_cpu_supports("avx512vbmi2") &&
		       __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
	if (strcmp(feature, "avx512bw") == 0)
		return __builtin_cpu_supports("avx512bw");
	if (strcmp(feature, "avx512f") == 0)
		return __builtin_cpu_supports("avx512f");
	if (strcmp(feature, "avx2") == 0)
		return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
	return false;
}
