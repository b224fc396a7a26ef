/* SPDX-License-Identifier: Apache-2.0 */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "ctl.h"
#include "flow.h"
#include "output.h"
#include "wire.h"

#define PATIENCE_MS 60000

struct infer {
	const struct ctl *ctl;
	const struct images *images;
	size_t n_failed;
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

	if (result->code < 0) {
		infer->n_failed++;
		(void)ctl_fail(infer->ctl, EXIT_FAILED, "%s: %s", path,
			*result->reason ? result->reason : strerror(-result->code));
	}
	(void)output_row(infer->ctl, result_object(path, result), false);
}

struct infer_options {
	const char *mask, *embedding, *deadline_ms;
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
	flow->request.flags = o->embedding ? KAMEN_WANT_EMBEDDING : 0;
	return EXIT_DONE;
}

int infer_run(struct ctl *ctl, int argc, char **argv)
{
	struct infer_options o = { 0 };
	const struct option_spec specs[] = {
		{ "mask", "MASK", "base, champion (default) or a version", &o.mask, NULL },
		{ "embedding", NULL, "with the embedding", &o.embedding, NULL },
		{ "deadline-ms", "MS", "of each request, 60000; 0: none", &o.deadline_ms, NULL },
	};
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
	status = flow_run(ctl, &images, &flow);
	return status == EXIT_DONE && infer.n_failed ? EXIT_FAILED : status;
}
