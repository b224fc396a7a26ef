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

/* With the names of as many classes it is one packet. */
#define CHUNK 500u
#define MOST_COMPLAINTS 5u

struct job {
	const struct ctl *ctl;
	const char *site;
	const struct labels *labels;
	struct control *control;
	bool *is_unknown; /* (labels->n) the site does not have it yet */
	uint64_t added, changed, removed, pushed, rejected, unknown;
};

/* ---- telling the daemon */

/* The classes of a chunk, in the order of their first image. */
struct names {
	char *names[CHUNK];
	uint32_t of[CHUNK];
	uint32_t n;
};

static uint32_t name_of(struct names *names, const struct labels *labels, uint32_t of)
{
	uint32_t i = 0;

	while (i < names->n && names->of[i] != of)
		i++;
	if (i == names->n) {
		names->of[i] = of;
		names->names[names->n++] = labels->classes[of];
	}
	return i;
}

static int take_answer(struct job *job, const uint32_t *rows, uint32_t n)
{
	const Kamen__Reply *reply;
	int status = control_next(job->control, false, &reply);

	if (status != EXIT_DONE)
		return status;
	if (!reply || reply->row_case != KAMEN__REPLY__ROW_LABELLED)
		return ctl_fail(
			job->ctl, EXIT_FAILED, "an answer of a kind that is not known here");
	job->added += reply->labelled->added;
	job->changed += reply->labelled->changed;
	job->removed += reply->labelled->removed;
	for (size_t i = 0; i < reply->labelled->n_unknown; i++)
		if (reply->labelled->unknown[i] < n)
			job->is_unknown[rows[reply->labelled->unknown[i]]] = true;
	return EXIT_DONE;
}

static int send_chunk(struct job *job, const uint32_t *rows, uint32_t n)
{
	_cleanup_(freep) Kamen__ImageLabel *images = calloc(n, sizeof(*images));
	Kamen__ImageLabel *list[CHUNK];
	Kamen__Request request = KAMEN__REQUEST__INIT;
	Kamen__LabelSet set = KAMEN__LABEL_SET__INIT;
	struct names names = { .n = 0 };
	int status;

	if (!images)
		return ctl_fail(job->ctl, EXIT_FAILED, "out of memory");
	for (uint32_t i = 0; i < n; i++) {
		struct labelled *row = &job->labels->rows[rows[i]];

		kamen__image_label__init(&images[i]);
		images[i].hash = (ProtobufCBinaryData){ DIGEST_BYTES, row->hash.bytes };
		images[i].has_of = row->of != LABELS_NONE;
		if (images[i].has_of)
			images[i].of = name_of(&names, job->labels, row->of);
		list[i] = &images[i];
	}
	set.site = (char *)(uintptr_t)job->site;
	set.n_classes = names.n;
	set.classes = names.names;
	set.n_images = n;
	set.images = list;
	request.verb_case = KAMEN__REQUEST__VERB_LABEL_SET;
	request.label_set = &set;
	status = control_send(job->control, &request, -1);
	return status == EXIT_DONE ? take_answer(job, rows, n) : status;
}

/* Of the rows for which is_wanted, NULL: all. */
static int send_labels(struct job *job, const bool *is_wanted)
{
	uint32_t rows[CHUNK], n = 0;
	int status = EXIT_DONE;

	for (size_t i = 0; i < job->labels->n && status == EXIT_DONE; i++) {
		if (!is_wanted || is_wanted[i])
			rows[n++] = (uint32_t)i;
		if (n == CHUNK) {
			status = send_chunk(job, rows, n);
			n = 0;
		}
	}
	return status == EXIT_DONE && n > 0 ? send_chunk(job, rows, n) : status;
}

/* ---- images that the site has not seen */

struct push {
	struct job *job;
	const struct images *images;
	const size_t *rows; /* of the labels, by image */
	bool *is_pushed;    /* (labels->n) */
};

static void on_result(void *data, size_t i, const struct kamen_result *result)
{
	struct push *push = data;
	struct job *job = push->job;

	if (result->code >= 0 && result->outcome <= 1) {
		push->is_pushed[push->rows[i]] = true;
		job->pushed++;
	} else if (job->rejected++ < MOST_COMPLAINTS) {
		(void)fprintf(stderr, "%s: %s\n", push->images->paths[i], flow_why(result));
	}
}

static int push_unknown(struct job *job, bool *is_pushed)
{
	size_t n = job->labels->n;
	_cleanup_(freep) char **paths = calloc(n + 1, sizeof(*paths));
	_cleanup_(freep) size_t *rows = calloc(n + 1, sizeof(*rows));
	struct images images = { .paths = paths }; /* borrowed: nothing to be freed */
	struct push push = { job, &images, rows, is_pushed };
	struct flow flow = { .done = on_result, .data = &push };
	struct stat st;

	if (!paths || !rows)
		return ctl_fail(job->ctl, EXIT_FAILED, "out of memory");
	for (size_t i = 0; i < n; i++) {
		if (!job->is_unknown[i])
			continue;
		rows[images.n] = i;
		paths[images.n++] = job->labels->rows[i].path;
		if (stat(job->labels->rows[i].path, &st) == 0 &&
			(uint64_t)st.st_size > images.max_bytes)
			images.max_bytes = (uint64_t)st.st_size;
	}
	flow.request = (struct kamen_request){
		.verb = KAMEN_PUSH, .format = KAMEN_ENCODED, .site = job->site
	};
	return images.n ? flow_run(job->ctl, &images, &flow) : EXIT_DONE;
}

static int n_set(const bool *flags, size_t n)
{
	int sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += flags[i];
	return sum;
}

/* First what the site has, then what it has to be given: a duplicate need not be decoded again. */
static int label_all(struct job *job, bool is_removal)
{
	size_t n = job->labels->n;
	_cleanup_(freep) bool *is_pushed = calloc(n + 1, sizeof(*is_pushed));
	int status;

	if (!is_pushed)
		return ctl_fail(job->ctl, EXIT_FAILED, "out of memory");
	status = send_labels(job, NULL);
	if (status != EXIT_DONE || is_removal) {
		job->unknown = (uint64_t)n_set(job->is_unknown, n);
		return status;
	}
	status = push_unknown(job, is_pushed);
	if (status != EXIT_DONE)
		return status;
	memset(job->is_unknown, 0, n * sizeof(*job->is_unknown));
	status = send_labels(job, is_pushed);
	/* A store that is full of newer ones may have let it go again. */
	job->rejected += (uint64_t)n_set(job->is_unknown, n);
	return status;
}

static int run(struct ctl *ctl, const char *site, const struct labels *labels, bool is_removal)
{
	_cleanup_(control_freep) struct control *control = NULL;
	_cleanup_(freep) bool *is_unknown = calloc(labels->n + 1, sizeof(*is_unknown));
	struct job job = { .ctl = ctl, .site = site, .labels = labels, .is_unknown = is_unknown };
	int status;

	if (!is_unknown)
		return ctl_fail(ctl, EXIT_FAILED, "out of memory");
	status = control_open(ctl, &control);
	if (status != EXIT_DONE)
		return status;
	job.control = control;
	status = label_all(&job, is_removal);
	if (status != EXIT_DONE)
		return status;
	status = output_row(ctl,
		json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "site", site, "labelled",
			(json_int_t)(is_removal ? 0 : labels->n - job.rejected), "added",
			(json_int_t)job.added, "changed", (json_int_t)job.changed, "removed",
			(json_int_t)job.removed, "pushed", (json_int_t)job.pushed, "rejected",
			(json_int_t)job.rejected, "unknown", (json_int_t)job.unknown),
		false);
	if (status == EXIT_DONE && job.rejected > 0)
		return ctl_fail(ctl, EXIT_FAILED, "%s: %llu of %zu images could not be taken", site,
			(unsigned long long)job.rejected, labels->n);
	return status;
}

/* ---- the command line */

struct label_options {
	const char *folders, *csv, *remove;
};

static bool is_file(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

static int collect(const struct ctl *ctl, const struct label_options *o, char **args, int n,
	struct labels *labels)
{
	const char *name = NULL;
	int status = EXIT_DONE;

	if ((o->folders != NULL) + (o->csv != NULL) + (o->remove != NULL) > 1)
		return ctl_fail(ctl, EXIT_USAGE, "one of --folders, --csv and --remove");
	if ((o->folders || o->csv) && n > 0)
		return ctl_fail(ctl, EXIT_USAGE, "%s: the list says which files", args[0]);
	if (o->folders)
		return labels_add_folders(ctl, labels, o->folders);
	if (o->csv)
		return labels_add_csv(ctl, labels, o->csv);
	if (!o->remove) {
		if (n < 2)
			return ctl_fail(ctl, EXIT_USAGE, "wants SITE PATH... CLASS; see --help");
		name = args[--n];
		if (is_file(name))
			return ctl_fail(ctl, EXIT_USAGE, "%s is a file: of which class?", name);
	} else if (n < 1) {
		return ctl_fail(ctl, EXIT_USAGE, "wants SITE --remove PATH...; see --help");
	}
	for (int i = 0; i < n && status == EXIT_DONE; i++)
		status = labels_add(ctl, labels, args[i], name);
	return status;
}

int label_run(struct ctl *ctl, int argc, char **argv)
{
	struct label_options o = { 0 };
	const struct option_spec specs[] = {
		{ "folders", "DIR", "a folder of folders, whose names are the classes", &o.folders,
			NULL },
		{ "csv", "FILE", "lines PATH,CLASS", &o.csv, NULL },
		{ "remove", NULL, "of no class any more", &o.remove, NULL },
	};
	_cleanup_(labels_done) struct labels labels = { 0 };
	int first, status;

	if (!options_parse(ctl, argc, argv, specs, ARRAY_SIZE(specs), 1, INT_MAX, &first, &status))
		return status;
	if (wire_site_name_check(argv[first]) < 0)
		return ctl_fail(ctl, EXIT_USAGE, "%s: not a site's name", argv[first]);
	status = collect(ctl, &o, argv + first + 1, argc - first - 1, &labels);
	if (status == EXIT_DONE)
		status = labels_identify(ctl, &labels);
	return status == EXIT_DONE ? run(ctl, argv[first], &labels, o.remove != NULL) : status;
}

int label_list_run(struct ctl *ctl, int argc, char **argv)
{
	return site_verb_run(ctl, argc, argv, KAMEN__REQUEST__VERB_LABEL_LIST, false);
}
