/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kamen/kamen.h"

static const struct command commands[] = {
	{ "", "status", "", "what runs: model, roles, sites", status_run },
	{ "site", "create", "SITE [--set KEY=VALUE]...", "make a site", site_create_run },
	{ "site", "list", "", "every site", site_list_run },
	{ "site", "show", "SITE", "one site and its settings", site_show_run },
	{ "site", "delete", "SITE --yes", "forget a site, its images and masks", site_delete_run },
	{ "site", "pause", "SITE", "begin no round until it is resumed", site_pause_run },
	{ "site", "freeze", "SITE", "no round, no promotion, no new image until it is resumed",
		site_freeze_run },
	{ "site", "resume", "SITE", "end a pause or a freeze", site_resume_run },
	{ "site", "reset", "SITE --yes", "back to the base; its versions stay", site_reset_run },
	{ "site", "hardest", "SITE", "the images that were hardest for its last hpm round",
		site_hardest_run },
	{ "", "top", "", "what every site does, live", top_run },
	{ "", "push", "SITE PATH...", "unlabelled images to learn from", push_run },
	{ "label", "list", "SITE", "the classes of a site and how many images have them",
		label_list_run },
	{ "", "label", "SITE PATH... CLASS", "say of what class images are", label_run },
	{ "class", "add", "SITE NAME PATH...",
		"tell a class apart from now on, by some of its images", class_add_run },
	{ "class", "list", "SITE", "the classes that a site tells apart", class_list_run },
	{ "class", "remove", "SITE NAME", "tell it apart no longer", class_remove_run },
	{ "", "learn", "SITE", "learn a candidate from what the site has seen", learn_run },
	{ "mask", "list", "SITE", "the masks of a site", mask_list_run },
	{ "mask", "show", "SITE VERSION", "one mask and its gate", mask_show_run },
	{ "mask", "promote", "SITE VERSION", "serve this mask from the next batch on",
		mask_promote_run },
	{ "mask", "rollback", "SITE", "serve the mask before this one", mask_rollback_run },
	{ "mask", "pin", "SITE VERSION", "never remove this mask for its age", mask_pin_run },
	{ "mask", "unpin", "SITE VERSION", "remove it when it is old enough", mask_unpin_run },
	{ "mask", "reproduce", "SITE VERSION", "learn it once more and compare the bits",
		mask_reproduce_run },
	{ "mask", "export", "SITE VERSION FILE",
		"write a mask as a .kmask file, a cascade as a .kcas", mask_export_run },
	{ "mask", "import", "SITE FILE", "a .kmask or .kcas file becomes a candidate",
		mask_import_run },
	{ "mask", "verify", "FILE", "sums and signature of such a file, without a daemon",
		mask_verify_run },
	{ "mask", "diff", "[SITE] FROM TO", "what flips between two versions or files",
		mask_diff_run },
	{ "mask", "keygen", "FILE", "a key to sign masks with", mask_keygen_run },
	{ "mask", "sign", "FILE --key FILE", "sign a .kmask file", mask_sign_run },
	{ "zmq", "keygen", "FILE", "a key for ZeroMQ, the daemon's or a peer's", zmq_keygen_run },
	{ "audit", "show", "", "the latest decisions, of all sites or of one", audit_show_run },
	{ "audit", "verify", "", "walk the audit's chain of hashes", audit_verify_run },
	{ "audit", "export", "", "the whole audit, a JSON object a line", audit_export_run },
	{ "", "infer", "SITE FILE...", "inspect images", infer_run },
	{ "", "eval", "SITE DIR", "labelled figures of a folder of folders; never learnt from",
		eval_run },
	{ "", "metrics", "", "Prometheus text", metrics_run },
	{ "", "restart", "", "a new kamend in place of the old one, without loss", restart_run },
};

#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static void usage(FILE *out)
{
	(void)fprintf(out, "usage: kamenctl [--runtime DIR] [--json] COMMAND ...\n\n");
	for (unsigned i = 0; i < N_COMMANDS; i++) {
		char line[80];

		(void)snprintf(line, sizeof(line), "%s%s%s %s", commands[i].group,
			*commands[i].group ? " " : "", commands[i].name, commands[i].args);
		(void)fprintf(out, "  %-34s %s\n", line, commands[i].help);
	}
	(void)fprintf(out,
		"\n  --runtime DIR  of the daemon; else $KAMEN_RUNTIME, else /run/kamen\n"
		"  --json         one JSON object a line on stdout\n"
		"  --help         of a command too; --version\n");
}

static const struct command *command_find(int argc, char **argv, int *ret_used)
{
	for (unsigned i = 0; i < N_COMMANDS; i++) {
		bool grouped = *commands[i].group != 0;

		if (strcmp(argv[0], grouped ? commands[i].group : commands[i].name) != 0)
			continue;
		if (grouped && (argc < 2 || strcmp(argv[1], commands[i].name) != 0))
			continue;
		*ret_used = grouped ? 2 : 1;
		return &commands[i];
	}
	return NULL;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "runtime", required_argument, NULL, 'r' },
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'v' },
		{ 0 },
	};
	struct ctl ctl = { .program = "kamenctl", .runtime = getenv("KAMEN_RUNTIME") };
	int c, used;

	/* "+": up to the command; what follows is the command's own. */
	while ((c = getopt_long(argc, argv, "+h", options, NULL)) != -1) {
		switch (c) {
		case 'r':
			ctl.runtime = optarg;
			break;
		case 'j':
			ctl.json = true;
			break;
		case 'h':
			usage(stdout);
			return EXIT_DONE;
		case 'v':
			(void)printf("kamenctl %s\n", kamen_version());
			return EXIT_DONE;
		default:
			return EXIT_USAGE;
		}
	}
	if (!ctl.runtime || !*ctl.runtime)
		ctl.runtime = "/run/kamen";
	if (optind == argc) {
		usage(stderr);
		return EXIT_USAGE;
	}
	ctl.command = command_find(argc - optind, argv + optind, &used);
	if (!ctl.command)
		return ctl_fail(&ctl, EXIT_USAGE, "no such command: %s%s%s; see --help",
			argv[optind], optind + 1 < argc ? " " : "",
			optind + 1 < argc ? argv[optind + 1] : "");
	/* The last word of the command's name takes argv[0]'s place. */
	return ctl.command->run(&ctl, argc - optind - used + 1, argv + optind + used - 1);
}
