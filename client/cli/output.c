/* SPDX-License-Identifier: Apache-2.0 */
#include "output.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

json_t *output_number(double number)
{
	return isfinite(number) ? json_real(number) : json_null();
}

json_t *output_integer(uint64_t number)
{
	char text[24];

	if (number <= INT64_MAX)
		return json_integer((json_int_t)number);
	(void)snprintf(text, sizeof(text), "%" PRIu64, number);
	return json_string(text);
}

json_t *output_hex(const void *data, size_t n_bytes)
{
	static const char digits[] = "0123456789abcdef";
	const unsigned char *bytes = data;
	char text[2 * 64 + 1];

	if (n_bytes > 64)
		n_bytes = 64;
	for (size_t i = 0; i < n_bytes; i++) {
		text[2 * i] = digits[bytes[i] >> 4];
		text[2 * i + 1] = digits[bytes[i] & 15];
	}
	text[2 * n_bytes] = 0;
	return json_string(text);
}

/* For a person: strings bare, the rest as JSON would have it. */
static void value_print(const json_t *value)
{
	if (json_is_string(value))
		(void)fputs(json_string_value(value), stdout);
	else if (json_is_real(value))
		(void)printf("%.6g", json_real_value(value));
	else
		(void)json_dumpf(
			value, stdout, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(6));
}

static void person_print(json_t *row, bool as_lines)
{
	const char *key, *between = "";
	json_t *value;

	json_object_foreach(row, key, value)
	{
		if (json_is_null(value) || (json_is_array(value) && json_array_size(value) == 0) ||
			(json_is_object(value) && json_object_size(value) == 0))
			continue;
		if (as_lines)
			(void)printf("%-16s ", key);
		else
			(void)printf("%s%s=", between, key);
		value_print(value);
		between = " ";
		if (as_lines)
			(void)putchar('\n');
	}
	if (!as_lines)
		(void)putchar('\n');
}

int output_row(const struct ctl *ctl, json_t *row, bool as_lines)
{
	if (!row)
		return ctl_fail(ctl, EXIT_FAILED, "out of memory");
	if (ctl->json) {
		(void)json_dumpf(row, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
		(void)putchar('\n');
	} else {
		person_print(row, as_lines);
	}
	json_decref(row);
	return fflush(stdout) == 0 ? EXIT_DONE : ctl_fail(ctl, EXIT_FAILED, "cannot write stdout");
}

int output_reply(const struct ctl *ctl, const Kamen__Reply *reply, bool as_lines)
{
	json_t *row = output_object(reply);

	return row ? output_row(ctl, row, as_lines)
		   : ctl_fail(ctl, EXIT_FAILED, "an answer of a kind that is not known here");
}
