/* SPDX-License-Identifier: Apache-2.0 */
#include "csv_line.h"

#include <stdbool.h>
#include <string.h>

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

const char *csv_line_split(char *line, char **ret_path, char **ret_name)
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
