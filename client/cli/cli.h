/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_CLI_H
#define KAMEN_CLI_H

#include <stdbool.h>
#include <stddef.h>

/* What the shell sees. Also what every command returns. */
enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_UNREACHABLE = 69, EXIT_CONFIG = 78 };

struct command;

/** One run of a program that has commands, or is one: then the command has no name. */
struct ctl {
	const char *program;
	const char *runtime;
	bool json;
	bool is_alone;   /* asks no daemon */
	bool is_patient; /* the daemon starts, which takes as long as its model is large */
	const struct command *command;
};

struct command {
	const char *group, *name; /* group "": none */
	const char *args, *help;
	int (*run)(struct ctl *ctl, int argc, char **argv);
};

/** One line on stderr; returns status, so that `return ctl_fail(ctl, EXIT_FAILED, ...)` leaves. */
int ctl_fail(const struct ctl *ctl, int status, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/** The exit status that a negative errno of a connection deserves. */
int ctl_status_of(int r);

/** An option of a command: of a value (arg names it) or a flag (arg NULL, the value is ""). */
struct option_spec {
	const char *name, *arg, *help;
	const char **value;
	unsigned *n_values; /* not NULL: may be repeated, value has room for OPTION_MAX_REPEATS */
};
#define OPTION_MAX_REPEATS 64u

/**
 * Parses a command's options, --help, --json and --runtime among them, wherever they stand.
 *
 * @param n_min, n_max  positional arguments
 * @param ret_status    exit status, where false is returned
 * @return true: argv[*ret_first] to argv[argc - 1] are the arguments
 */
bool options_parse(struct ctl *ctl, int argc, char **argv, const struct option_spec *specs,
	unsigned n_specs, int n_min, int n_max, int *ret_first, int *ret_status);
/** A whole unsigned number no larger than max, else false. */
bool number_parse(const char *text, unsigned long long max, unsigned long long *ret_number);

#endif
