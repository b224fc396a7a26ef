/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "cleanup.h"
#include "control.h"
#include "ctl.h"
#include "flow.h"
#include "labels.h"
#include "output.h"
#include "site_verb.h"

struct addition {
	const struct ctl *ctl;
	const char *site, *name;
	const struct labels *labels;
	bool *is_brought; /* (labels->n) the site did not have it */
	size_t n_rejected;
	bool is_there; /* the class */
};

/* Before anything is pushed in vain. */
static int check_present(struct addition *job, struct control *control)
{
	Kamen__Request request = KAMEN__REQUEST__INIT;
	Kamen__SiteName named = KAMEN__SITE_NAME__INIT;
	const Kamen__Reply *reply;
	unsigned n = 0;
	int status;

	named.site = (char *)(uintptr_t)job->site;
	request.verb_case = KAMEN__REQUEST__VERB_CLASS_LIST;
	request.class_list = &named;
	status = control_send(control, &request, -1);
	while (status == EXIT_DONE) {
		status = control_next(control, false, &reply);
		if (status != EXIT_DONE || !reply)
			break;
		if (reply->row_case != KAMEN__REPLY__ROW_CLASS_)
			continue;
		n++;
		if (strcmp(reply->class_->name, job->name) == 0)
			status = ctl_fail(job->ctl, EXIT_FAILED,
				"site %s: there is a class '%s' already", job->site, job->name);
	}
	if (status == EXIT_DONE && n >= WIRE_MAX_SHOWN)
		status = ctl_fail(job->ctl, EXIT_FAILED,
			"site %s: it has %u classes, and may have no more", job->site, n);
	return status;
}

static void on_result(void *data, size_t i, const struct kamen_result *result)
{
	struct addition *job = data;

	job->is_brought[i] = result->code >= 0 && result->outcome == 0;
	if (result->code >= 0 && result->outcome <= 1)
		return;
	job->n_rejected++;
	(void)ctl_fail(
		job->ctl, EXIT_FAILED, "%s: %s", job->labels->rows[i].path, flow_why(result));
}

static int push(struct addition *job)
{
	_cleanup_(freep) char **paths = calloc(job->labels->n, sizeof(*paths));
	struct images images = { .paths = paths, .n = job->labels->n }; /* borrowed */
	struct flow flow = { .done = on_result, .data = job };
	struct stat st;
	int status;

	if (!paths)
		return ctl_fail(job->ctl, EXIT_FAILED, "out of memory");
	for (size_t i = 0; i < images.n; i++) {
		paths[i] = job->labels->rows[i].path;
		if (stat(paths[i], &st) == 0 && (uint64_t)st.st_size > images.max_bytes)
			images.max_bytes = (uint64_t)st.st_size;
	}
	flow.request = (struct kamen_request){
		.verb = KAMEN_PUSH, .format = KAMEN_ENCODED, .site = job->site
	};
	status = flow_run(job->ctl, &images, &flow);
	return status == EXIT_DONE && job->n_rejected > 0 ? EXIT_FAILED : status;
}

static int add(struct addition *job, struct control *control)
{
	size_t n = job->labels->n;
	_cleanup_(freep) Kamen__ClassImage *images = calloc(n, sizeof(*images));
	_cleanup_(freep) Kamen__ClassImage **list = calloc(n, sizeof(*list));
	Kamen__Request request = KAMEN__REQUEST__INIT;
	Kamen__ClassAdd message = KAMEN__CLASS_ADD__INIT;
	const Kamen__Reply *reply;
	int status;

	if (!images || !list)
		return ctl_fail(job->ctl, EXIT_FAILED, "out of memory");
	for (size_t i = 0; i < n; i++) {
		kamen__class_image__init(&images[i]);
		images[i].hash =
			(ProtobufCBinaryData){ DIGEST_BYTES, job->labels->rows[i].hash.bytes };
		images[i].has_brought = images[i].brought = job->is_brought[i];
		list[i] = &images[i];
	}
	message.site = (char *)(uintptr_t)job->site;
	message.name = (char *)(uintptr_t)job->name;
	message.n_images = n;
	message.images = list;
	request.verb_case = KAMEN__REQUEST__VERB_CLASS_ADD;
	request.class_add = &message;
	status = control_ask(control, &request, -1, KAMEN__REPLY__ROW_CLASS_, &reply);
	job->is_there = status == EXIT_DONE;
	return status == EXIT_DONE ? output_reply(job->ctl, reply, false) : status;
}

/* What came for a class that does not come about is not to be learnt from either. */
static void drop_brought(struct addition *job, struct control *control)
{
	ProtobufCBinaryData hashes[WIRE_MAX_SUPPORTS];
	Kamen__Request request = KAMEN__REQUEST__INIT;
	Kamen__ClassDrop message = KAMEN__CLASS_DROP__INIT;
	const Kamen__Reply *reply;
	size_t n_left;

	for (size_t i = 0; i < job->labels->n; i++)
		if (job->is_brought[i])
			hashes[message.n_hashes++] = (ProtobufCBinaryData){ DIGEST_BYTES,
				job->labels->rows[i].hash.bytes };
	n_left = message.n_hashes;
	if (n_left == 0)
		return;
	message.site = (char *)(uintptr_t)job->site;
	message.hashes = hashes;
	request.verb_case = KAMEN__REQUEST__VERB_CLASS_DROP;
	request.class_drop = &message;
	if (control_ask(control, &request, -1, KAMEN__REPLY__ROW_CLASS_DROPPED, &reply) ==
		EXIT_DONE)
		n_left -= reply->class_dropped->images < n_left ? reply->class_dropped->images
								: n_left;
	if (n_left > 0)
		(void)ctl_fail(job->ctl, EXIT_FAILED,
			"site %s: %zu images that were pushed for '%s' stay, and are learnt from",
			job->site, n_left, job->name);
}

static int run(struct ctl *ctl, const char *site, const char *name, const struct labels *labels)
{
	_cleanup_(control_freep) struct control *control = NULL;
	_cleanup_(freep) bool *is_brought = calloc(labels->n, sizeof(*is_brought));
	struct addition job = {
		.ctl = ctl, .site = site, .name = name, .labels = labels, .is_brought = is_brought
	};
	int status;

	if (!is_brought)
		return ctl_fail(ctl, EXIT_FAILED, "out of memory");
	status = control_open(ctl, &control);
	if (status == EXIT_DONE)
		status = check_present(&job, control);
	if (status != EXIT_DONE)
		return status;
	status = push(&job);
	if (status == EXIT_DONE)
		status = add(&job, control);
	if (!job.is_there)
		drop_brought(&job, control);
	return status;
}

static int check_names(const struct ctl *ctl, const char *site, const char *name)
{
	if (wire_site_name_check(site) < 0)
		return ctl_fail(ctl, EXIT_USAGE, "%s: not a site's name", site);
	if (wire_class_name_check(name) < 0)
		return ctl_fail(ctl, EXIT_USAGE, "%s: not a class's name", name);
	return EXIT_DONE;
}

int class_add_run(struct ctl *ctl, int argc, char **argv)
{
	_cleanup_(labels_done) struct labels labels = { 0 };
	int first, status;

	if (!options_parse(ctl, argc, argv, NULL, 0, 3, INT_MAX, &first, &status))
		return status;
	status = check_names(ctl, argv[first], argv[first + 1]);
	for (int i = first + 2; i < argc && status == EXIT_DONE; i++)
		status = labels_add(ctl, &labels, argv[i], argv[first + 1]);
	if (status == EXIT_DONE)
		status = labels_identify(ctl, &labels);
	if (status == EXIT_DONE && labels.n > WIRE_MAX_SUPPORTS)
		status = ctl_fail(ctl, EXIT_FAILED, "%zu images: a class has 1 to %u", labels.n,
			WIRE_MAX_SUPPORTS);
	return status == EXIT_DONE ? run(ctl, argv[first], argv[first + 1], &labels) : status;
}

int class_list_run(struct ctl *ctl, int argc, char **argv)
{
	return site_verb_run(ctl, argc, argv, KAMEN__REQUEST__VERB_CLASS_LIST, false);
}

int class_remove_run(struct ctl *ctl, int argc, char **argv)
{
	Kamen__Request request = KAMEN__REQUEST__INIT;
	Kamen__ClassRemove message = KAMEN__CLASS_REMOVE__INIT;
	int first, status;

	if (!options_parse(ctl, argc, argv, NULL, 0, 2, 2, &first, &status))
		return status;
	status = check_names(ctl, argv[first], argv[first + 1]);
	if (status != EXIT_DONE)
		return status;
	message.site = argv[first];
	message.name = argv[first + 1];
	request.verb_case = KAMEN__REQUEST__VERB_CLASS_REMOVE;
	request.class_remove = &message;
	return control_run(ctl, &request, -1, false);
}
