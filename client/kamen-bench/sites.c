/* SPDX-License-Identifier: Apache-2.0 */
#include "sites.h"

#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "control.h"

static int request_finish(struct control *control, Kamen__Request *request)
{
	const Kamen__Reply *reply;
	int status = control_send(control, request, -1);

	do {
		reply = NULL;
		if (status == EXIT_DONE)
			status = control_next(control, false, &reply);
	} while (status == EXIT_DONE && reply);
	return status;
}

int sites_daemon(struct ctl *ctl, char ret_precision[8], struct sites_roles *ret_roles)
{
	_cleanup_(control_freep) struct control *control = NULL;
	Kamen__Request request = KAMEN__REQUEST__INIT;
	Kamen__Empty nothing = KAMEN__EMPTY__INIT;
	const Kamen__Reply *reply;
	int status = control_open(ctl, &control);

	request.verb_case = KAMEN__REQUEST__VERB_STATUS;
	request.status = &nothing;
	if (status == EXIT_DONE)
		status = control_ask(control, &request, -1, KAMEN__REPLY__ROW_STATUS, &reply);
	if (status != EXIT_DONE)
		return status;
	(void)snprintf(ret_precision, 8, "%s",
		reply->status->precision ? reply->status->precision : "f32");
	for (size_t i = 0; i < reply->status->n_roles; i++) {
		if (strcmp(reply->status->roles[i]->name, "serve") == 0)
			ret_roles->serve = reply->status->roles[i]->pid;
		if (strcmp(reply->status->roles[i]->name, "learner") == 0)
			ret_roles->learner = reply->status->roles[i]->pid;
	}
	return EXIT_DONE;
}

int sites_create(struct ctl *ctl, uint32_t n, uint32_t input_px, char (*ret_names)[64])
{
	_cleanup_(control_freep) struct control *control = NULL;
	Kamen__KeyValue set = KAMEN__KEY_VALUE__INIT, *sets[] = { &set };
	char px[16];
	int status = control_open(ctl, &control);

	(void)snprintf(px, sizeof(px), "%u", input_px);
	set.key = (char *)"input_px";
	set.value = px;
	for (uint32_t i = 0; i < n && status == EXIT_DONE; i++) {
		Kamen__Request request = KAMEN__REQUEST__INIT;
		Kamen__SiteCreate create = KAMEN__SITE_CREATE__INIT;

		(void)snprintf(ret_names[i], sizeof(ret_names[i]), "bench-%d-%u", (int)getpid(), i);
		create.site = ret_names[i];
		create.n_set = input_px ? 1 : 0;
		create.set = sets;
		request.verb_case = KAMEN__REQUEST__VERB_SITE_CREATE;
		request.site_create = &create;
		status = request_finish(control, &request);
	}
	return status;
}

int sites_learn(struct ctl *ctl, const char *name)
{
	_cleanup_(control_freep) struct control *control = NULL;
	Kamen__Request request = KAMEN__REQUEST__INIT;
	Kamen__Learn learn = KAMEN__LEARN__INIT;
	int status = control_open(ctl, &control);

	learn.site = (char *)(uintptr_t)name;
	learn.has_steps = 1;
	learn.steps = 10000;
	request.verb_case = KAMEN__REQUEST__VERB_LEARN;
	request.learn = &learn;
	return status == EXIT_DONE ? request_finish(control, &request) : status;
}

void sites_delete(struct ctl *ctl, uint32_t n, char (*names)[64])
{
	_cleanup_(control_freep) struct control *control = NULL;

	if (control_open(ctl, &control) != EXIT_DONE)
		return;
	for (uint32_t i = 0; i < n; i++) {
		Kamen__Request request = KAMEN__REQUEST__INIT;
		Kamen__SiteDelete message = KAMEN__SITE_DELETE__INIT;

		message.site = names[i];
		message.yes = 1;
		request.verb_case = KAMEN__REQUEST__VERB_SITE_DELETE;
		request.site_delete = &message;
		if (request_finish(control, &request) != EXIT_DONE)
			return;
	}
}
