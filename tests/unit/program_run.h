/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_TESTS_PROGRAM_RUN_H
#define KAMEN_TESTS_PROGRAM_RUN_H

/* A program run by a shell, and all that it says: include after cmocka.h. */

#include <stdarg.h>
#include <stdio.h>
#include <sys/wait.h>

struct ran {
	int status;
	char out[65536];
};

static const char *program;

static inline void run(struct ran *ran, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
static inline void run(struct ran *ran, const char *format, ...)
{
	char args[1024], command[2048];
	va_list ap;
	FILE *pipe;
	size_t n;
	int status;

	va_start(ap, format);
	(void)vsnprintf(args, sizeof(args), format, ap);
	va_end(ap);
	(void)snprintf(command, sizeof(command), "%s %s 2>&1", program, args);
	pipe = popen(command, "re");
	assert_non_null(pipe);
	n = fread(ran->out, 1, sizeof(ran->out) - 1, pipe);
	ran->out[n] = 0;
	status = pclose(pipe);
	assert_true(WIFEXITED(status));
	ran->status = WEXITSTATUS(status);
}

static inline unsigned n_lines(const char *text)
{
	unsigned n = 0;

	for (; *text; text++)
		n += *text == '\n';
	return n;
}

#endif
