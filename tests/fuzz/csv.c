/* SPDX-License-Identifier: Apache-2.0 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "csv_line.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* As a careful program writes it: quotes around, those inside twice. */
static char *quote(char *to, const char *field)
{
	*to++ = '"';
	for (; *field; field++) {
		if (*field == '"')
			*to++ = '"';
		*to++ = *field;
	}
	*to++ = '"';
	return to;
}

/* What is found lies in the line, and written out again is found again. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	char *line = malloc(n + 1), *again = malloc(2 * n + 8), *path, *name, *path2, *name2, *to;

	if (!line || !again)
		abort();
	memcpy(line, data, n);
	line[n] = 0;
	if (!csv_line_split(line, &path, &name)) {
		if (path < line || name <= path || name > line + n)
			abort();
		to = quote(again, path);
		*to++ = ',';
		*quote(to, name) = 0;
		if (csv_line_split(again, &path2, &name2) || strcmp(path, path2) != 0 ||
			strcmp(name, name2) != 0)
			abort();
	}
	free(line);
	free(again);
	return 0;
}
