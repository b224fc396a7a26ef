/* SPDX-License-Identifier: Apache-2.0 */
/* Lines PATH,CLASS, as RFC 4180 has them but for line breaks inside of quotes. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "labels.h"

#define MAX_LINE 8192u

/* Unquotes a field in place and ends it. @return what is behind its comma, or NULL: the line's end;
 * *ret_field NULL: a quote too few or too many */
static char *take_field(char *text, char **ret_field)
{
	char *out = text, *in = text + 1;

	*ret_field = text;
	if (*text != '"') {
		size_t n = strcspn(text, ",");
		bool is_last = !text[n];

		if (memchr(text, '"', n))
			*ret_field = NULL;
		text[n] = 0;
		return is_last ? NULL : text + n + 1;
	}
	while (*in && !(in[0] == '"' && in[1] != '"')) {
		in += *in == '"';
		*out++ = *in++;
	}
	if (*in != '"' || (in[1] && in[1] != ','))
		*ret_field = NULL;
	text = *in && in[1] ? in + 2 : NULL;
	*out = 0;
	return text;
}

/* @return NULL, or what is wrong */
static const char *split(char *line, char **ret_path, char **ret_name)
{
	char *rest = take_field(line, ret_path);

	if (!*ret_path)
		return "a quote too few or too many";
	if (!rest)
		return "not PATH,CLASS";
	rest = take_field(rest, ret_name);
	if (!*ret_name)
		return "a quote too few or too many";
	return rest ? "more than PATH,CLASS" : !**ret_path ? "no path" : NULL;
}

static int add_line(const struct ctl *ctl, struct labels *labels, const char *folder,
	size_t n_folder, char *text, uint32_t line)
{
	_cleanup_(freep) char *path = NULL;
	char *named, *name;
	const char *wrong = split(text, &named, &name);

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
