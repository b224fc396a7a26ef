/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

#define MAX_SPECS 32u
#define FIRST_SPEC 256

int ctl_fail(const struct ctl *ctl, int status, const char *format, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	if (ctl->command && *ctl->command->name)
		(void)fprintf(stderr, "%s %s%s%s: %s\n", ctl->program, ctl->command->group,
			*ctl->command->group ? " " : "", ctl->command->name, text);
	else
		(void)fprintf(stderr, "%s: %s\n", ctl->program, text);
	return status;
}

int ctl_status_of(int r)
{
	switch (-r) {
	case ENOENT:
	case ECONNREFUSED:
	case ECONNRESET:
	case ENOTCONN:
	case EPIPE:
	case ETIMEDOUT:
	case ENOTDIR:
		return EXIT_UNREACHABLE;
	default:
		return EXIT_FAILED;
	}
}

static void command_help(const struct ctl *ctl, const struct option_spec *specs, unsigned n)
{
	const struct command *command = ctl->command;

	(void)printf("usage: %s %s%s%s%s%s\n%s\n\n", ctl->program, command->group,
		*command->group ? " " : "", command->name, *command->name ? " " : "", command->args,
		command->help);
	for (unsigned i = 0; i < n; i++) {
		char left[64];

		(void)snprintf(left, sizeof(left), "--%s%s%s", specs[i].name,
			specs[i].arg ? " " : "", specs[i].arg ? specs[i].arg : "");
		(void)printf("  %-28s %s\n", left, specs[i].help);
	}
	(void)printf("  %-28s %s\n", "--json", "one JSON object a line");
	if (!ctl->is_alone)
		(void)printf("  %-28s %s\n", "--runtime DIR", "which daemon");
}

static int spec_take(const struct ctl *ctl, const struct option_spec *spec, const char *value)
{
	if (!spec->n_values) {
		*spec->value = value;
		return EXIT_DONE;
	}
	if (*spec->n_values == OPTION_MAX_REPEATS)
		return ctl_fail(
			ctl, EXIT_USAGE, "--%s more than %u times", spec->name, OPTION_MAX_REPEATS);
	spec->value[(*spec->n_values)++] = value;
	return EXIT_DONE;
}

static void specs_to_options(struct option *options, const struct option_spec *specs, unsigned n)
{
	*options++ = (struct option){ "help", no_argument, NULL, 'h' };
	*options++ = (struct option){ "json", no_argument, NULL, 'j' };
	*options++ = (struct option){ "runtime", required_argument, NULL, 'r' };
	for (unsigned i = 0; i < n; i++)
		*options++ = (struct option){ specs[i].name,
			specs[i].arg ? required_argument : no_argument, NULL, FIRST_SPEC + (int)i };
	*options = (struct option){ 0 };
}

bool options_parse(struct ctl *ctl, int argc, char **argv, const struct option_spec *specs,
	unsigned n_specs, int n_min, int n_max, int *ret_first, int *ret_status)
{
	struct option options[MAX_SPECS + 4];
	int c;

	*ret_status = EXIT_USAGE;
	if (n_specs > MAX_SPECS) {
		(void)ctl_fail(ctl, EXIT_USAGE, "more options than there is room for");
		return false;
	}
	specs_to_options(options, specs, n_specs);
	optind = 0; /* glibc: begin anew, main has parsed what came before */
	while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (c == 'h') {
			command_help(ctl, specs, n_specs);
			*ret_status = EXIT_DONE;
			return false;
		}
		if (c == 'j')
			ctl->json = true;
		else if (c == 'r')
			ctl->runtime = optarg;
		else if (c < FIRST_SPEC ||
			 spec_take(ctl, &specs[c - FIRST_SPEC], optarg ? optarg : "") != EXIT_DONE)
			return false;
	}
	if (argc - optind < n_min || argc - optind > n_max) {
		(void)ctl_fail(ctl, EXIT_USAGE, "wants %s; see --help",
			*ctl->command->args ? ctl->command->args : "no argument");
		return false;
	}
	*ret_first = optind;
	return true;
}

bool number_parse(const char *text, unsigned long long max, unsigned long long *ret_number)
{
	unsigned long long number;
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	number = strtoull(text, &end, 10);
	if (*end || errno || number > max)
		return false;
	*ret_number = number;
	return true;
}
