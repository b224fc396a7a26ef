/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "class_table.h"
#include "control.h"
#include "ctl.h"
#include "flow.h"
#include "heat_file.h"
#include "heat_target.h"
#include "infer_opta.h"
#include "output.h"
#include "wire.h"

#define PATIENCE_MS 60000

struct infer {
	const struct ctl *ctl;
	const struct images *images;
	size_t n_failed;
	const struct heat_targets *targets; /* NULL: no maps are asked for */
	struct heat_prep prep;
	char resize[8];
	const struct class_table *table; /* NULL: confidences are not asked for */
	const struct prototypes *prototypes;
	float *confidences; /* (table->n) */
};

static json_t *embedding_array(const struct kamen_result *result)
{
	json_t *array;

	if (!result->embedding)
		return json_null();
	array = json_array();
	for (uint32_t i = 0; i < result->n_embedding; i++)
		(void)json_array_append_new(array, output_number((double)result->embedding[i]));
	return array;
}

static json_t *map_array(const struct kamen_result *result)
{
	json_t *rows = json_array();

	for (uint32_t y = 0; y < result->hardness_side; y++) {
		json_t *row = json_array();

		for (uint32_t x = 0; x < result->hardness_side; x++)
			(void)json_array_append_new(row,
				output_number(
					(double)result->hardness[y * result->hardness_side + x]));
		(void)json_array_append_new(rows, row);
	}
	return rows;
}

static void put_hardness(
	struct infer *infer, json_t *o, size_t i, const struct kamen_result *result)
{
	struct heat_why why = { "" };
	const char *path;

	if (!result->hardness || !infer->targets)
		return;
	path = infer->targets->paths[i];
	if (heat_file_write(path, infer->images->paths[i], &infer->prep, result->hardness,
		    result->hardness_side, &why) < 0) {
		infer->n_failed++;
		(void)ctl_fail(infer->ctl, EXIT_FAILED, "%s", why.text);
		return;
	}
	(void)json_object_set_new(o, "hardness_file", json_string(path));
	if (infer->ctl->json)
		(void)json_object_set_new(o, "hardness", map_array(result));
}

/* The embedding that came is the feature that they are compared by. */
static void put_confidences(struct infer *infer, json_t *o, const struct kamen_result *result)
{
	json_t *classes;

	if (!infer->table || result->code < 0 || result->n_embedding != infer->table->dim)
		return;
	(void)prototypes_classify(infer->prototypes, result->embedding, infer->confidences);
	classes = json_object();
	for (uint32_t c = 0; c < infer->table->n; c++)
		(void)json_object_set_new(classes, infer->table->names[c],
			output_number((double)infer->confidences[c]));
	(void)json_object_set_new(o, "confidences", classes);
	(void)json_object_set_new(o, "embedding", json_null());
}

static json_t *result_object(const char *path, const struct kamen_result *result)
{
	json_t *o = json_object();

	(void)json_object_set_new(o, "file", json_string(path));
	(void)json_object_set_new(o, "mask", json_integer(result->version));
	(void)json_object_set_new(o, "verdict", json_string(kamen_verdict_name(result->verdict)));
	(void)json_object_set_new(o, "reason", json_string(result->reason));
	(void)json_object_set_new(o, "novelty", output_number((double)result->novelty));
	(void)json_object_set_new(o, "distance", output_number((double)result->distance));
	(void)json_object_set_new(
		o, "label", *result->label ? json_string(result->label) : json_null());
	(void)json_object_set_new(o, "score", output_number((double)result->score));
	(void)json_object_set_new(o, "unknown", output_number((double)result->unknown));
	(void)json_object_set_new(o, "queue_us", json_real((double)result->queue_ns * 1e-3));
	(void)json_object_set_new(o, "compute_us", json_real((double)result->compute_ns * 1e-3));
	(void)json_object_set_new(o, "space", output_hex(result->space, 32));
	(void)json_object_set_new(o, "code", json_integer(result->code));
	(void)json_object_set_new(o, "embedding", embedding_array(result));
	return o;
}

static void on_result(void *data, size_t i, const struct kamen_result *result)
{
	struct infer *infer = data;
	const char *path = infer->images->paths[i];
	json_t *row;

	if (result->code < 0) {
		infer->n_failed++;
		(void)ctl_fail(infer->ctl, EXIT_FAILED, "%s: %s", path,
			*result->reason ? result->reason : strerror(-result->code));
	}
	row = result_object(path, result);
	put_hardness(infer, row, i, result);
	put_confidences(infer, row, result);
	(void)output_row(infer->ctl, row, false);
}

struct infer_options {
	const char *mask, *embedding, *opta, *deadline_ms, *hardness, *confidences;
};

static int flow_fill(const struct ctl *ctl, const struct infer_options *o, struct flow *flow)
{
	unsigned long long ms = PATIENCE_MS;

	if (o->mask && !flow_mask_parse(o->mask, &flow->request))
		return ctl_fail(ctl, EXIT_USAGE, "--mask %s: base, champion or a version", o->mask);
	if (o->deadline_ms && !number_parse(o->deadline_ms, 86400000, &ms))
		return ctl_fail(
			ctl, EXIT_USAGE, "--deadline-ms %s: not milliseconds", o->deadline_ms);
	flow->patience_ns = ms * 1000000;
	flow->request.flags =
		(o->embedding ? KAMEN_WANT_EMBEDDING : 0) | (o->hardness ? KAMEN_WANT_HARDNESS : 0);
	return EXIT_DONE;
}

/* Where in an image the map lies. */
static int read_prep(struct ctl *ctl, struct infer *infer, const char *site)
{
	_cleanup_(control_freep) struct control *control = NULL;
	Kamen__Request request = KAMEN__REQUEST__INIT;
	Kamen__SiteName name = KAMEN__SITE_NAME__INIT;
	const Kamen__Reply *reply = NULL;
	int status;

	name.site = (char *)(uintptr_t)site;
	request.verb_case = KAMEN__REQUEST__VERB_SITE_SHOW;
	request.site_show = &name;
	status = control_open(ctl, &control);
	if (status == EXIT_DONE)
		status = control_ask(control, &request, -1, KAMEN__REPLY__ROW_SITE, &reply);
	if (status != EXIT_DONE)
		return status;
	if (!reply->site->resize)
		return ctl_fail(
			ctl, EXIT_FAILED, "the daemon does not tell how %s cuts images", site);
	(void)snprintf(infer->resize, sizeof(infer->resize), "%s", reply->site->resize);
	infer->prep = (struct heat_prep){ reply->site->input_px, reply->site->crop, infer->resize };
	return EXIT_DONE;
}

/* Classes and features of one space: where the champion changes meanwhile, it is refused. */
static int with_classes(struct ctl *ctl, struct infer *infer, struct flow *flow)
{
	_cleanup_(class_table_done) struct class_table table = { 0 };
	_cleanup_(prototypes_freep) struct prototypes *prototypes = NULL;
	_cleanup_(freep) float *confidences = NULL;
	int status = class_table_ask(ctl, flow->request.site, &table);
	int r;

	if (status != EXIT_DONE)
		return status;
	confidences = calloc(table.n, sizeof(*confidences));
	r = confidences ? class_table_prototypes(&prototypes, &table) : -ENOMEM;
	if (r < 0)
		return ctl_fail(ctl, EXIT_FAILED, "%s", strerror(-r));
	infer->table = &table;
	infer->prototypes = prototypes;
	infer->confidences = confidences;
	flow->request.flags |= KAMEN_WANT_FEATURE | KAMEN_WANT_SPACE;
	memcpy(flow->request.space, table.space, CLASS_TABLE_SPACE);
	status = flow_run(ctl, infer->images, flow);
	infer->table = NULL;
	return status;
}

int infer_run(struct ctl *ctl, int argc, char **argv)
{
	struct infer_options o = { 0 };
	const struct option_spec specs[] = {
		{ "mask", "MASK", "base, champion (default) or a version", &o.mask, NULL },
		{ "embedding", NULL, "with the embedding", &o.embedding, NULL },
		{ "hardness", "FILE", "draw its hardness map to a PNG; a folder for several",
			&o.hardness, NULL },
		{ "opta", NULL, "tell all files apart at once by the site's classes", &o.opta,
			NULL },
		{ "confidences", NULL, "with the confidence in each of the site's classes",
			&o.confidences, NULL },
		{ "deadline-ms", "MS", "of each request, 60000; 0: none", &o.deadline_ms, NULL },
	};
	_cleanup_(heat_targets_done) struct heat_targets targets = { 0 };
	_cleanup_(images_done) struct images images = { 0 };
	struct infer infer = { .ctl = ctl, .images = &images };
	struct flow flow = { .done = on_result, .data = &infer };
	int first, status;

	if (!options_parse(ctl, argc, argv, specs, ARRAY_SIZE(specs), 2, INT_MAX, &first, &status))
		return status;
	if (wire_site_name_check(argv[first]) < 0)
		return ctl_fail(ctl, EXIT_USAGE, "%s: not a site's name", argv[first]);
	flow.request = (struct kamen_request){
		.verb = KAMEN_INFER, .format = KAMEN_ENCODED, .site = argv[first]
	};
	status = flow_fill(ctl, &o, &flow);
	if (status != EXIT_DONE)
		return status;
	for (int i = first + 1; i < argc; i++) {
		int r = images_add(&images, argv[i], PART_ALL);

		if (r < 0)
			return ctl_fail(ctl, EXIT_FAILED, "%s: %s", argv[i], strerror(-r));
	}
	if (o.opta && (o.mask || o.embedding || o.hardness || o.confidences))
		return ctl_fail(ctl, EXIT_USAGE, "--opta: by the champion, and labels alone");
	if (o.confidences && (o.mask || o.embedding || o.hardness))
		return ctl_fail(
			ctl, EXIT_USAGE, "--confidences: by the champion, no embedding and no map");
	if (o.opta)
		return infer_opta_run(ctl, argv[first], &images, flow.patience_ns);
	if (o.hardness) {
		status = heat_targets_find(ctl, &targets, &images, o.hardness);
		infer.targets = &targets;
		if (status == EXIT_DONE)
			status = read_prep(ctl, &infer, argv[first]);
	}
	if (status == EXIT_DONE)
		status = o.confidences ? with_classes(ctl, &infer, &flow)
				       : flow_run(ctl, &images, &flow);
	return status == EXIT_DONE && infer.n_failed ? EXIT_FAILED : status;
}
