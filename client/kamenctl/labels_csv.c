/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "csv_line.h"
#include "labels.h"

#define MAX_LINE 8192u

static int add_line(const struct ctl *ctl, struct labels *labels, const char *folder,
	size_t n_folder, char *text, uint32_t line)
{
	_cleanup_(freep) char *path = NULL;
	char *named, *name;
	const char *wrong = csv_line_split(text, &named, &name);

	if (wrong)
		return ctl_fail(ctl, EXIT_FAILED, "%s:%u: %s", labels->list, line, wrong);
	if (line == 1 && strcmp(named, "file") == 0 && strcmp(name, "class") == 0)
		return EXIT_DONE;
	if (named[0] == '/')
		n_folder = 0;
	if (asprintf(&path, "%.*s%s", (int)n_folder, folder, named) < 0)
		return ctl_fail(ctl, EXIT_FAILED, "out of memory");
	return labels_put(ctl, labels, path, name, line);
}

/* Without its end. @return its length, or -1: the end of the file, -2: too long or with a NUL */
static int read_line(FILE *file, char line[MAX_LINE])
{
	int c, n = 0;

	while ((c = getc(file)) != EOF && c != '\n') {
		if (n == (int)MAX_LINE - 1 || c == 0)
			return -2;
		line[n++] = (char)c;
	}
	if (c == EOF && n == 0)
		return -1;
	if (n > 0 && line[n - 1] == '\r')
		n--;
	line[n] = 0;
	return n;
}

int labels_add_csv(const struct ctl *ctl, struct labels *labels, const char *path)
{
	_cleanup_(fclosep) FILE *file = fopen(path, "re");
	const char *slash = strrchr(path, '/');
	size_t n_folder = slash ? (size_t)(slash - path) + 1 : 0;
	char line[MAX_LINE];
	int status = EXIT_DONE, n;

	if (!file)
		return ctl_fail(ctl, EXIT_FAILED, "%s: %s", path, strerror(errno));
	labels->list = path;
	for (uint32_t i = 1; status == EXIT_DONE && (n = read_line(file, line)) != -1; i++) {
		char *text = line;

		if (n == -2)
			return ctl_fail(ctl, EXIT_FAILED, "%s:%u: longer than %u bytes, or no text",
				path, i, MAX_LINE - 1);
		/* What some programs write before the text to say that it is UTF-8. */
		if (i == 1 && strncmp(text, "\xef\xbb\xbf", 3) == 0)
			text += 3;
		if (*text)
			status = add_line(ctl, labels, path, n_folder, text, i);
	}
	if (status == EXIT_DONE && ferror(file))
		return ctl_fail(ctl, EXIT_FAILED, "%s: %s", path, strerror(errno));
	return status;
}
