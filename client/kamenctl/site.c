/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "control.h"
#include "site_verb.h"
#include "ctl.h"
#include "output.h"

/* Protobuf-c's strings are not const; nothing writes to them. */
static char *text(const char *s)
{
	return (char *)(uintptr_t)s;
}

static bool name_ok(const struct ctl *ctl, const char *site, int *ret_status)
{
	if (wire_site_name_check(site) == 0)
		return true;
	*ret_status = ctl_fail(ctl, EXIT_USAGE,
		"%s: a site's name is 1 to 63 of a-z 0-9 . _ -, beginning with a letter or digit",
		site);
	return false;
}

int status_run(struct ctl *ctl, int argc, char **argv)
{
	Kamen__Request request = KAMEN__REQUEST__INIT;
	Kamen__Empty empty = KAMEN__EMPTY__INIT;
	int first, status;

	if (!options_parse(ctl, argc, argv, NULL, 0, 0, 0, &first, &status))
		return status;
	request.verb_case = KAMEN__REQUEST__VERB_STATUS;
	request.status = &empty;
	return control_run(ctl, &request, -1, true);
}

int restart_run(struct ctl *ctl, int argc, char **argv)
{
	_cleanup_(control_freep) struct control *control = NULL;
	Kamen__Request request = KAMEN__REQUEST__INIT;
	Kamen__Empty empty = KAMEN__EMPTY__INIT;
	int first, status;

	if (!options_parse(ctl, argc, argv, NULL, 0, 0, 0, &first, &status))
		return status;
	request.verb_case = KAMEN__REQUEST__VERB_RESTART;
	request.restart = &empty;
	status = control_open(ctl, &control);
	if (status == EXIT_DONE)
		status = control_send(control, &request, -1);
	if (status == EXIT_DONE)
		status = control_wait_end(control);
	if (status != EXIT_DONE)
		return status;
	/* Who connects meanwhile waits: the answer is the new one's. */
	ctl->is_patient = true;
	request.verb_case = KAMEN__REQUEST__VERB_STATUS;
	request.status = &empty;
	return control_run(ctl, &request, -1, true);
}

static int metrics_write(struct ctl *ctl, FILE *out)
{
	_cleanup_(control_freep) struct control *control = NULL;
	Kamen__Request request = KAMEN__REQUEST__INIT;
	Kamen__Empty empty = KAMEN__EMPTY__INIT;
	const Kamen__Reply *reply;
	int status;

	request.verb_case = KAMEN__REQUEST__VERB_METRICS;
	request.metrics = &empty;
	status = control_open(ctl, &control);
	if (status == EXIT_DONE)
		status = control_send(control, &request, -1);
	while (status == EXIT_DONE) {
		status = control_next(control, false, &reply);
		if (status != EXIT_DONE || !reply)
			break;
		/* As many pieces as it takes: a packet has a limit. */
		if (reply->row_case == KAMEN__REPLY__ROW_TEXT)
			(void)fputs(reply->text->text, out);
	}
	return status;
}

int metrics_run(struct ctl *ctl, int argc, char **argv)
{
	_cleanup_(freep) char *whole = NULL;
	size_t n;
	FILE *out;
	int first, status;

	if (!options_parse(ctl, argc, argv, NULL, 0, 0, 0, &first, &status))
		return status;
	if (!ctl->json)
		return metrics_write(ctl, stdout);
	out = open_memstream(&whole, &n);
	if (!out)
		return ctl_fail(ctl, EXIT_FAILED, "out of memory");
	status = metrics_write(ctl, out);
	if (fclose(out) != 0)
		return ctl_fail(ctl, EXIT_FAILED, "out of memory");
	return status == EXIT_DONE ? output_row(ctl, json_pack("{s:s}", "text", whole), false)
				   : status;
}

int site_create_run(struct ctl *ctl, int argc, char **argv)
{
	const char *sets[OPTION_MAX_REPEATS];
	unsigned n = 0;
	const struct option_spec specs[] = {
		{ "set", "KEY=VALUE", "a setting, as in kamend.conf's [site]", sets, &n },
	};
	Kamen__KeyValue values[OPTION_MAX_REPEATS], *pointers[OPTION_MAX_REPEATS];
	char keys[OPTION_MAX_REPEATS][64];
	Kamen__Request request = KAMEN__REQUEST__INIT;
	Kamen__SiteCreate create = KAMEN__SITE_CREATE__INIT;
	int first, status;

	if (!options_parse(ctl, argc, argv, specs, 1, 1, 1, &first, &status) ||
		!name_ok(ctl, argv[first], &status))
		return status;
	for (unsigned i = 0; i < n; i++) {
		const char *equals = strchr(sets[i], '=');
		size_t n_key = equals ? (size_t)(equals - sets[i]) : 0;

		if (n_key == 0 || n_key >= sizeof(keys[i]))
			return ctl_fail(ctl, EXIT_USAGE, "--set %s: not KEY=VALUE", sets[i]);
		memcpy(keys[i], sets[i], n_key);
		keys[i][n_key] = 0;
		values[i] = (Kamen__KeyValue)KAMEN__KEY_VALUE__INIT;
		values[i].key = keys[i];
		values[i].value = text(equals + 1);
		pointers[i] = &values[i];
	}
	create.site = argv[first];
	create.n_set = n;
	create.set = pointers;
	request.verb_case = KAMEN__REQUEST__VERB_SITE_CREATE;
	request.site_create = &create;
	return control_run(ctl, &request, -1, true);
}

int site_list_run(struct ctl *ctl, int argc, char **argv)
{
	Kamen__Request request = KAMEN__REQUEST__INIT;
	Kamen__Empty empty = KAMEN__EMPTY__INIT;
	int first, status;

	if (!options_parse(ctl, argc, argv, NULL, 0, 0, 0, &first, &status))
		return status;
	request.verb_case = KAMEN__REQUEST__VERB_SITE_LIST;
	request.site_list = &empty;
	return control_run(ctl, &request, -1, false);
}

int site_verb_run(
	struct ctl *ctl, int argc, char **argv, Kamen__Request__VerbCase verb, bool as_lines)
{
	Kamen__Request request = KAMEN__REQUEST__INIT;
	Kamen__SiteName name = KAMEN__SITE_NAME__INIT;
	int first, status;

	if (!options_parse(ctl, argc, argv, NULL, 0, 1, 1, &first, &status) ||
		!name_ok(ctl, argv[first], &status))
		return status;
	name.site = argv[first];
	request.verb_case = verb;
	request.site_show = &name; /* members of the oneof are one pointer */
	return control_run(ctl, &request, -1, as_lines);
}

int site_show_run(struct ctl *ctl, int argc, char **argv)
{
	return site_verb_run(ctl, argc, argv, KAMEN__REQUEST__VERB_SITE_SHOW, true);
}

static int hold_run(struct ctl *ctl, int argc, char **argv, Kamen__Hold hold)
{
	Kamen__Request request = KAMEN__REQUEST__INIT;
	Kamen__SiteHold message = KAMEN__SITE_HOLD__INIT;
	int first, status;

	if (!options_parse(ctl, argc, argv, NULL, 0, 1, 1, &first, &status) ||
		!name_ok(ctl, argv[first], &status))
		return status;
	message.site = argv[first];
	message.hold = hold;
	request.verb_case = KAMEN__REQUEST__VERB_SITE_HOLD;
	request.site_hold = &message;
	return control_run(ctl, &request, -1, true);
}

int site_pause_run(struct ctl *ctl, int argc, char **argv)
{
	return hold_run(ctl, argc, argv, KAMEN__HOLD__PAUSE);
}

int site_freeze_run(struct ctl *ctl, int argc, char **argv)
{
	return hold_run(ctl, argc, argv, KAMEN__HOLD__FREEZE);
}

int site_resume_run(struct ctl *ctl, int argc, char **argv)
{
	return hold_run(ctl, argc, argv, KAMEN__HOLD__RUN);
}

/* What asks for --yes: delete and reset. */
static int yes_run(
	struct ctl *ctl, int argc, char **argv, const char *help, Kamen__Request__VerbCase verb)
{
	const char *yes = NULL;
	const struct option_spec specs[] = { { "yes", NULL, help, &yes, NULL } };
	Kamen__Request request = KAMEN__REQUEST__INIT;
	Kamen__SiteDelete message = KAMEN__SITE_DELETE__INIT;
	int first, status;

	if (!options_parse(ctl, argc, argv, specs, 1, 1, 1, &first, &status) ||
		!name_ok(ctl, argv[first], &status))
		return status;
	if (!yes)
		return ctl_fail(ctl, EXIT_USAGE, "%s: nothing done without --yes", argv[first]);
	message.site = argv[first];
	message.yes = 1;
	request.verb_case = verb;
	request.site_delete = &message; /* members of the oneof are one pointer */
	return control_run(ctl, &request, -1, true);
}

int site_reset_run(struct ctl *ctl, int argc, char **argv)
{
	return yes_run(ctl, argc, argv, "do it: the base is served from the next batch on",
		KAMEN__REQUEST__VERB_SITE_RESET);
}

int site_delete_run(struct ctl *ctl, int argc, char **argv)
{
	return yes_run(ctl, argc, argv, "do it: images, masks and settings are gone",
		KAMEN__REQUEST__VERB_SITE_DELETE);
}

int site_hardest_run(struct ctl *ctl, int argc, char **argv)
{
	const char *count = NULL;
	const struct option_spec specs[] = {
		{ "count", "N", "how many, 20; at most 1000", &count, NULL },
	};
	Kamen__Request request = KAMEN__REQUEST__INIT;
	Kamen__SiteHardest message = KAMEN__SITE_HARDEST__INIT;
	unsigned long long n = 0;
	int first, status;

	if (!options_parse(ctl, argc, argv, specs, 1, 1, 1, &first, &status) ||
		!name_ok(ctl, argv[first], &status))
		return status;
	if (count && (!number_parse(count, 1000, &n) || n == 0))
		return ctl_fail(ctl, EXIT_USAGE, "--count %s: 1 to 1000", count);
	message.site = argv[first];
	message.has_count = count != NULL;
	message.count = (uint32_t)n;
	request.verb_case = KAMEN__REQUEST__VERB_SITE_HARDEST;
	request.site_hardest = &message;
	return control_run(ctl, &request, -1, false);
}
