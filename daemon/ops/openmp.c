/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ops/cpus.h"
#include "ops/log.h"
#include "ops/openmp.h"

/* Which role the environment was made for, and the variables that are ours: "serve OMP_X OMP_Y".
 * A role inherits serve's environment and must tell these from what the user had set. */
#define MARK "KAMEN_OPENMP"

static unsigned count_cpus(void)
{
	cpu_set_t cpus;

	return sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? (unsigned)CPU_COUNT(&cpus) : 1;
}

int openmp_set_up(const char *role, const char *cpus, uint32_t threads, bool passive, char **argv)
{
	char n_threads[16], ours[128] = "", mark[128];
	/*
	 * Threads that wait for the others of a batch spin first, some .3 ms: who
	 * sleeps may be woken late, on a halted CPU or behind the learner. Where two of them share a
	 * CPU each takes it from the other so long, hence spread.h; int8 has no such team, and was
	 * not measured with so much.
	 */
	const char *const variables[][2] = {
		{ "OMP_NUM_THREADS", n_threads },
		{ "OMP_WAIT_POLICY", "passive" },
		{ "GOMP_SPINCOUNT", passive ? "0" : "10000" },
		/* Threads of its own, started before main(), for matrices of a few hundred. */
		{ "OPENBLAS_NUM_THREADS", "1" },
	};
	const char *was = getenv(MARK);
	struct diag diag = { 0 };
	size_t n;

	if (was && strncmp(was, role, strlen(role)) == 0)
		return 0;
	if (cpus_keep_to(cpus, &diag) < 0)
		log_warning("%s: %s: it runs anywhere", role, diag.text);
	(void)snprintf(ours, sizeof(ours), "%s", was ? was : "");
	(void)snprintf(n_threads, sizeof(n_threads), "%u", threads ? threads : count_cpus());
	n = (size_t)snprintf(mark, sizeof(mark), "%s", role);
	for (unsigned i = 0; i < sizeof(variables) / sizeof(variables[0]); i++) {
		const char *name = variables[i][0];

		if (getenv(name) && !strstr(ours, name))
			continue;
		if (setenv(name, variables[i][1], 1) < 0)
			return -errno;
		if (n < sizeof(mark))
			n += (size_t)snprintf(mark + n, sizeof(mark) - n, " %s", name);
	}
	if (setenv(MARK, mark, 1) < 0)
		return -errno;
	(void)execv("/proc/self/exe", argv);
	return -errno;
}

bool openmp_is_ours(const char *variable)
{
	size_t n_name = strcspn(variable, "=");
	const char *mark = getenv(MARK), *at;

	if (strncmp(variable, MARK "=", sizeof(MARK)) == 0)
		return true;
	for (at = mark ? strchr(mark, ' ') : NULL; at; at = strchr(at, ' ')) {
		at++;
		if (strcspn(at, " ") == n_name && strncmp(at, variable, n_name) == 0)
			return true;
	}
	return false;
}
