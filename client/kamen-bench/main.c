/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

static const struct command commands[] = {
	{ "", "infer", "--model FILE | --random NAME[,NAME]...",
		"the forward pass, preprocessing included, beside its products alone", infer_run },
	{ "", "switch", "", "from one site's mask to another's, beside a forward pass",
		switch_run },
	{ "", "learn", "--model FILE | --random NAME[,NAME]...",
		"a learning step of the default recipe, beside its products alone", learn_run },
	{ "", "serve", "", "clients in a closed loop, or at a rate, against a running daemon",
		serve_run },
	{ "", "ipc", "", "a round trip through a real session without inference, beside ZeroMQ",
		ipc_run },
};

#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static int usage(FILE *out, int status)
{
	(void)fprintf(out, "usage: kamen-bench COMMAND [--json] ...\n\n");
	for (unsigned i = 0; i < N_COMMANDS; i++)
		(void)fprintf(out, "  %-7s %s\n", commands[i].name, commands[i].help);
	(void)fprintf(out, "\n  --help of a command says its options\n");
	return status;
}

int main(int argc, char **argv)
{
	struct ctl ctl = { .program = "kamen-bench", .runtime = getenv("KAMEN_RUNTIME") };

	if (argc < 2)
		return usage(stderr, EXIT_USAGE);
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
		return usage(stdout, EXIT_DONE);
	for (unsigned i = 0; i < N_COMMANDS; i++)
		if (strcmp(argv[1], commands[i].name) == 0) {
			ctl.command = &commands[i];
			return commands[i].run(&ctl, argc - 1, argv + 1);
		}
	return ctl_fail(&ctl, EXIT_USAGE, "no such command: %s; see --help", argv[1]);
}
