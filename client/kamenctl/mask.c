/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "control.h"
#include "ctl.h"
#include "kmask_file.h"
#include "mask_file.h"
#include "output.h"
#include "progress.h"
#include "sealed.h"
#include "site_verb.h"

int mask_list_run(struct ctl *ctl, int argc, char **argv)
{
	return site_verb_run(ctl, argc, argv, KAMEN__REQUEST__VERB_MASK_LIST, false);
}

static int version_run(struct ctl *ctl, int argc, char **argv, Kamen__Request__VerbCase verb)
{
	Kamen__Request request = KAMEN__REQUEST__INIT;
	Kamen__SiteVersion message = KAMEN__SITE_VERSION__INIT;
	int first, status;

	if (!options_parse(ctl, argc, argv, NULL, 0, 2, 2, &first, &status))
		return status;
	status = mask_version_take(ctl, argv[first], argv[first + 1], &message);
	if (status != EXIT_DONE)
		return status;
	request.verb_case = verb;
	request.mask_show = &message; /* members of the oneof are one pointer */
	return control_run(ctl, &request, -1, true);
}

int mask_show_run(struct ctl *ctl, int argc, char **argv)
{
	return version_run(ctl, argc, argv, KAMEN__REQUEST__VERB_MASK_SHOW);
}

int mask_promote_run(struct ctl *ctl, int argc, char **argv)
{
	return version_run(ctl, argc, argv, KAMEN__REQUEST__VERB_MASK_PROMOTE);
}

int mask_pin_run(struct ctl *ctl, int argc, char **argv)
{
	return version_run(ctl, argc, argv, KAMEN__REQUEST__VERB_MASK_PIN);
}

int mask_unpin_run(struct ctl *ctl, int argc, char **argv)
{
	return version_run(ctl, argc, argv, KAMEN__REQUEST__VERB_MASK_UNPIN);
}

/* Exit status 1 where the bits differ, so that a script need not read. */
int mask_reproduce_run(struct ctl *ctl, int argc, char **argv)
{
	_cleanup_(control_freep) struct control *control = NULL;
	Kamen__Request request = KAMEN__REQUEST__INIT;
	Kamen__SiteVersion message = KAMEN__SITE_VERSION__INIT;
	const Kamen__Reply *reply;
	bool is_equal = false;
	int first, status;

	if (!options_parse(ctl, argc, argv, NULL, 0, 2, 2, &first, &status))
		return status;
	status = mask_version_take(ctl, argv[first], argv[first + 1], &message);
	if (status == EXIT_DONE)
		status = control_open(ctl, &control);
	request.verb_case = KAMEN__REQUEST__VERB_MASK_REPRODUCE;
	request.mask_reproduce = &message;
	if (status == EXIT_DONE)
		status = control_send(control, &request, -1);
	while (status == EXIT_DONE) {
		status = control_next(control, true, &reply);
		if (status != EXIT_DONE || !reply)
			break;
		if (reply->row_case == KAMEN__REPLY__ROW_REPRODUCED)
			is_equal = reply->reproduced->equal;
		if (reply->row_case == KAMEN__REPLY__ROW_PROGRESS && !ctl->json)
			progress_print(reply->progress);
		else if (reply->row_case != KAMEN__REPLY__ROW__NOT_SET)
			status = output_reply(ctl, reply, true);
	}
	if (status == EXIT_DONE && !is_equal)
		status = ctl_fail(ctl, EXIT_FAILED, "version %u came out otherwise this time",
			message.version);
	return status;
}

int mask_rollback_run(struct ctl *ctl, int argc, char **argv)
{
	return site_verb_run(ctl, argc, argv, KAMEN__REQUEST__VERB_MASK_ROLLBACK, true);
}

/* The version's bytes become FILE whole or not at all. */
int mask_export_run(struct ctl *ctl, int argc, char **argv)
{
	_cleanup_(control_freep) struct control *control = NULL;
	_cleanup_(freep) void *data = NULL;
	Kamen__SiteVersion message = KAMEN__SITE_VERSION__INIT;
	const char *hardness = NULL;
	const struct option_spec specs[] = {
		{ "hardness", NULL, "its .khard instead", &hardness, NULL },
	};
	json_t *row = NULL;
	size_t n_bytes = 0;
	int first, status, r;

	if (!options_parse(ctl, argc, argv, specs, 1, 3, 3, &first, &status))
		return status;
	status = mask_version_take(ctl, argv[first], argv[first + 1], &message);
	message.has_hardness = message.hardness = hardness != NULL;
	if (status == EXIT_DONE)
		status = control_open(ctl, &control);
	if (status == EXIT_DONE)
		status = mask_fetch(ctl, control, &message, &data, &n_bytes, &row);
	if (status != EXIT_DONE)
		return status;
	r = kmask_file_write(argv[first + 2], data, n_bytes);
	if (r < 0) {
		json_decref(row);
		return ctl_fail(ctl, EXIT_FAILED, "%s: %s", argv[first + 2], strerror(-r));
	}
	(void)json_object_set_new(row, "file", json_string(argv[first + 2]));
	(void)json_object_set_new(row, "bytes", json_integer((json_int_t)n_bytes));
	return output_row(ctl, row, true);
}

int mask_import_run(struct ctl *ctl, int argc, char **argv)
{
	_cleanup_(closep) int fd = -1;
	_cleanup_(freep) void *data = NULL;
	Kamen__Request request = KAMEN__REQUEST__INIT;
	Kamen__SiteName name = KAMEN__SITE_NAME__INIT;
	size_t n_bytes;
	int first, status, r;

	if (!options_parse(ctl, argc, argv, NULL, 0, 2, 2, &first, &status))
		return status;
	status = mask_read(ctl, argv[first + 1], &data, &n_bytes);
	if (status != EXIT_DONE)
		return status;
	r = sealed_new(data, n_bytes, &fd);
	if (r < 0)
		return ctl_fail(ctl, EXIT_FAILED, "%s: %s", argv[first + 1], strerror(-r));
	name.site = argv[first];
	request.verb_case = KAMEN__REQUEST__VERB_MASK_IMPORT;
	request.mask_import = &name;
	return control_run(ctl, &request, fd, true);
}
