/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/openmp.h"

/*
 * openmp_set_up() executes the program anew, so this program is three in a row: the one that the
 * user starts, serve, and the learner that inherits serve's environment. OPENMP_TEST says which.
 */
static int expect(const char *name, const char *value)
{
	const char *is = getenv(name);

	if (is && strcmp(is, value) == 0)
		return 0;
	fprintf(stderr, "%s: %s is %s, not %s\n", getenv("OPENMP_TEST"), name, is ? is : "unset",
		value);
	return 1;
}

static int go_on_as(const char *role, uint32_t threads, char **argv)
{
	(void)setenv("OPENMP_TEST", role, 1);
	(void)openmp_set_up(role, "", threads, strcmp(role, "learner") == 0, argv);
	fprintf(stderr, "%s: was not executed\n", role);
	return 1;
}

int main(int argc, char **argv)
{
	const char *stage = getenv("OPENMP_TEST");

	(void)argc;
	if (!stage) {
		(void)unsetenv("KAMEN_OPENMP");
		(void)unsetenv("OMP_NUM_THREADS");
		(void)unsetenv("GOMP_SPINCOUNT");
		(void)setenv("OMP_WAIT_POLICY", "active", 1);
		return go_on_as("serve", 3, argv);
	}
	if (openmp_set_up(stage, "", 7, false, argv) != 0)
		return 1;
	if (strcmp(stage, "serve") == 0) {
		if (expect("OMP_NUM_THREADS", "3") || expect("GOMP_SPINCOUNT", "10000") ||
			expect("OMP_WAIT_POLICY", "active"))
			return 1;
		return go_on_as("learner", 2, argv);
	}
	return expect("OMP_NUM_THREADS", "2") || expect("GOMP_SPINCOUNT", "0") ||
	       expect("OMP_WAIT_POLICY", "active");
}
