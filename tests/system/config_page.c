/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "learn/recipe_field.h"
#include "ops/config.h"
#include "ops/setting.h"

/* kamend.conf(5) has a line "*key=* (range; default value)" under "## [section]" for every row of
 * the tables, and for nothing else. */
static char page[65536];

static const char *section_of(const char *section)
{
	char heading[64];
	const char *at;

	(void)snprintf(heading, sizeof(heading), "\n## [%s]\n", section);
	at = strstr(page, heading);
	if (!at)
		fail_msg("no section [%s]", section);
	return at + 1;
}

static unsigned check_rows(const struct setting *rows, size_t n, const void *base)
{
	char want[700], range[200], value[300];

	for (size_t i = 0; i < n; i++) {
		const char *at = section_of(rows[i].section), *line, *end = strstr(at, "\n## ");

		setting_range(&rows[i], range, sizeof(range));
		assert_int_equal(setting_get(&rows[i], base, value, sizeof(value)), 0);
		(void)snprintf(want, sizeof(want), "\n*%s=* (%s; default %s)\n", rows[i].key, range,
			*value ? value : "nothing");
		line = strstr(at, want);
		if (!line || (end && line > end))
			fail_msg("[%s] does not say: %s", rows[i].section, want + 1);
	}
	return (unsigned)n;
}

static void the_page_has_every_key_with_range_and_default(void **state)
{
	unsigned n_rows = 0, n_lines = 0;
	const struct setting *rows;
	struct config config;
	size_t n;

	(void)state;
	config_default(&config);
	rows = config_settings(&n);
	n_rows += check_rows(rows, n, &config);
	rows = config_site_settings(&n);
	n_rows += check_rows(rows, n, &config.site_defaults);
	for (const char *at = page; (at = strstr(at, "=* (")); at++)
		n_lines++;
	assert_int_equal(n_lines, n_rows);
}

/* Under "# RECIPE", in a line of terms: "*name* (..." or "*name*, *other* (...". */
static void the_page_has_every_field_of_a_recipe(void **state)
{
	const char *section = strstr(page, "\n# RECIPE\n");
	const char *end = section ? strstr(section, "\n# EXAMPLE\n") : NULL;

	(void)state;
	assert_non_null(end);
	for (const struct recipe_field *field = recipe_fields; field->name; field++) {
		const char *line;
		char want[64];

		(void)snprintf(want, sizeof(want), "*%s*", field->name);
		line = strstr(section, want);
		if (!line || line > end || (line[-1] != '\n' && line[-1] != ' '))
			fail_msg("RECIPE does not say: %s", field->name);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_page_has_every_key_with_range_and_default),
		cmocka_unit_test(the_page_has_every_field_of_a_recipe),
	};
	FILE *file = fopen(argc == 2 ? argv[1] : "man/kamend.conf.5.scd", "re");

	if (!file || fread(page, 1, sizeof(page) - 1, file) == 0)
		return 1;
	(void)fclose(file);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
