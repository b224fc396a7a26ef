/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The schema beside the one that was promised: schema.txt, one line a field. A line of it that is
 * no longer true fails. New fields are said, so that they can be appended to it.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "kamen.pb-c.h"

#define MAX_LINES 1024
#define MAX_CHARS 128

struct lines {
	char text[MAX_LINES][MAX_CHARS];
	unsigned n;
};

static const ProtobufCMessageDescriptor *const roots[] = {
	&kamen__hello__descriptor,
	&kamen__welcome__descriptor,
	&kamen__request__descriptor,
	&kamen__resumed__descriptor,
	&kamen__reply__descriptor,
	&kamen__stream_frame__descriptor,
	&kamen__role_message__descriptor,
	&kamen__router_request__descriptor,
	&kamen__router_reply__descriptor,
	&kamen__published__descriptor,
};

static const char *type_name(const ProtobufCFieldDescriptor *field)
{
	static const char *const names[] = {
		[PROTOBUF_C_TYPE_INT32] = "int32",
		[PROTOBUF_C_TYPE_SINT32] = "sint32",
		[PROTOBUF_C_TYPE_SFIXED32] = "sfixed32",
		[PROTOBUF_C_TYPE_INT64] = "int64",
		[PROTOBUF_C_TYPE_SINT64] = "sint64",
		[PROTOBUF_C_TYPE_SFIXED64] = "sfixed64",
		[PROTOBUF_C_TYPE_UINT32] = "uint32",
		[PROTOBUF_C_TYPE_FIXED32] = "fixed32",
		[PROTOBUF_C_TYPE_UINT64] = "uint64",
		[PROTOBUF_C_TYPE_FIXED64] = "fixed64",
		[PROTOBUF_C_TYPE_FLOAT] = "float",
		[PROTOBUF_C_TYPE_DOUBLE] = "double",
		[PROTOBUF_C_TYPE_BOOL] = "bool",
		[PROTOBUF_C_TYPE_STRING] = "string",
		[PROTOBUF_C_TYPE_BYTES] = "bytes",
	};

	if (field->type == PROTOBUF_C_TYPE_ENUM)
		return ((const ProtobufCEnumDescriptor *)field->descriptor)->short_name;
	if (field->type == PROTOBUF_C_TYPE_MESSAGE)
		return ((const ProtobufCMessageDescriptor *)field->descriptor)->short_name;
	return names[field->type];
}

static void add(struct lines *lines, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(struct lines *lines, const char *format, ...)
{
	char line[MAX_CHARS];
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(line, sizeof(line), format, ap);
	va_end(ap);
	for (unsigned i = 0; i < lines->n; i++)
		if (strcmp(lines->text[i], line) == 0)
			return;
	assert_true(lines->n < MAX_LINES);
	memcpy(lines->text[lines->n++], line, sizeof(line));
}

static void add_message(struct lines *lines, const ProtobufCMessageDescriptor *type)
{
	static const char *const labels[] = { "required", "optional", "repeated", "none" };

	for (unsigned i = 0; i < type->n_fields; i++) {
		const ProtobufCFieldDescriptor *field = &type->fields[i];

		add(lines, "%s.%s = %u %s %s", type->short_name, field->name, field->id,
			field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF ? "oneof" : labels[field->label],
			type_name(field));
		if (field->type == PROTOBUF_C_TYPE_ENUM) {
			const ProtobufCEnumDescriptor *e = field->descriptor;

			for (unsigned j = 0; j < e->n_values; j++)
				add(lines, "%s.%s = %d value", e->short_name, e->values[j].name,
					e->values[j].value);
		}
		if (field->type == PROTOBUF_C_TYPE_MESSAGE)
			add_message(lines, field->descriptor);
	}
}

static bool has(const struct lines *lines, const char *line)
{
	for (unsigned i = 0; i < lines->n; i++)
		if (strcmp(lines->text[i], line) == 0)
			return true;
	return false;
}

static void numbers_and_types_are_what_was_promised(void **state)
{
	static struct lines now, promised;
	unsigned n_broken = 0;
	char line[MAX_CHARS];
	FILE *f = fopen("tests/unit/schema.txt", "re");

	(void)state;
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = 0;
		if (*line && *line != '#')
			add(&promised, "%s", line);
	}
	(void)fclose(f);
	assert_true(promised.n > 100);
	for (unsigned i = 0; i < sizeof(roots) / sizeof(roots[0]); i++)
		add_message(&now, roots[i]);

	for (unsigned i = 0; i < promised.n; i++)
		if (!has(&now, promised.text[i])) {
			print_error("promised in schema.txt, broken in kamen.proto: %s\n",
				promised.text[i]);
			n_broken++;
		}
	for (unsigned i = 0; i < now.n; i++)
		if (!has(&promised, now.text[i]))
			print_message("new: append to tests/unit/schema.txt: %s\n", now.text[i]);
	assert_int_equal(n_broken, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_and_types_are_what_was_promised),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
