/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/environment.h"

#include <stdlib.h>
#include <unistd.h>

char **environment_copy(bool (*is_dropped)(const char *variable), char *more)
{
	size_t n = 0, m = 0;
	char **copy;

	while (environ[n])
		n++;
	copy = calloc(n + 2, sizeof(*copy));
	if (!copy)
		return NULL;
	for (size_t i = 0; i < n; i++)
		if (!is_dropped(environ[i]))
			copy[m++] = environ[i];
	copy[m] = more;
	return copy;
}
