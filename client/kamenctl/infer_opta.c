/* SPDX-License-Identifier: Apache-2.0 */
#include "infer_opta.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "classify/opta.h"
#include "control.h"
#include "flow.h"
#include "output.h"
#include "shm_layout.h"

#define SPACE_BYTES 32u
#define NO_ROW UINT32_MAX

/* The site's classes, as its champion compares them. */
struct table {
	char **names;
	float *means;       /* (n, dim) */
	uint32_t *n_images; /* (n) */
	uint32_t n, room, dim;
	float temperature;
	uint8_t space[SPACE_BYTES];
};

static void table_done(struct table *table)
{
	for (uint32_t i = 0; i < table->n; i++)
		free(table->names[i]);
	free(table->names);
	free(table->means);
	free(table->n_images);
}

static int table_grow(struct table *table)
{
	const uint32_t room = table->room ? 2 * table->room : 16;
	char **names = realloc(table->names, room * sizeof(*names));
	uint32_t *n_images;
	float *means;

	if (!names)
		return -ENOMEM;
	table->names = names;
	n_images = realloc(table->n_images, room * sizeof(*n_images));
	if (!n_images)
		return -ENOMEM;
	table->n_images = n_images;
	means = realloc(table->means, (size_t)room * table->dim * sizeof(*means));
	if (!means)
		return -ENOMEM;
	table->means = means;
	table->room = room;
	return 0;
}

static int table_add(struct table *table, const Kamen__ClassPrototype *row)
{
	const size_t n_bytes = row->mean.len;
	int r;

	if (table->n == 0) {
		table->dim = (uint32_t)(n_bytes / sizeof(float));
		table->temperature = row->temperature;
		if (table->dim == 0 || row->space.len != SPACE_BYTES)
			return -EPROTO;
		memcpy(table->space, row->space.data, SPACE_BYTES);
	}
	if (n_bytes != table->dim * sizeof(float))
		return -EPROTO;
	r = table->n == table->room ? table_grow(table) : 0;
	if (r < 0)
		return r;
	table->names[table->n] = strdup(row->name);
	if (!table->names[table->n])
		return -ENOMEM;
	table->n_images[table->n] = row->images;
	memcpy(table->means + (size_t)table->n++ * table->dim, row->mean.data, n_bytes);
	return 0;
}

static int table_ask(struct ctl *ctl, const char *site, struct table *table)
{
	_cleanup_(control_freep) struct control *control = NULL;
	Kamen__Request request = KAMEN__REQUEST__INIT;
	Kamen__SiteName named = KAMEN__SITE_NAME__INIT;
	const Kamen__Reply *reply;
	int r = 0, status;

	named.site = (char *)(uintptr_t)site;
	request.verb_case = KAMEN__REQUEST__VERB_CLASS_PROTOTYPES;
	request.class_prototypes = &named;
	status = control_open(ctl, &control);
	if (status == EXIT_DONE)
		status = control_send(control, &request, -1);
	while (status == EXIT_DONE && r == 0) {
		status = control_next(control, false, &reply);
		if (status != EXIT_DONE || !reply)
			break;
		if (reply->row_case == KAMEN__REPLY__ROW_CLASS_PROTOTYPE)
			r = table_add(table, reply->class_prototype);
	}
	if (r == 0 && status == EXIT_DONE && table->n == 0)
		r = -ENODATA;
	return r < 0 ? ctl_fail(ctl, EXIT_FAILED, "classes of %s: %s", site, strerror(-r)) : status;
}

/* What is kept of an answer until all are there. */
struct kept {
	uint32_t row; /* of the features; NO_ROW: of no class, or failed */
	uint32_t version;
	int code;
	enum kamen_verdict verdict;
	float novelty, unknown;
	uint64_t queue_ns, compute_ns;
	char reason[SHM_REASON_CHARS];
};

struct batch {
	const struct ctl *ctl;
	const struct images *images;
	const struct table *table;
	struct kept *kept; /* (images->n) */
	float *features;   /* (n, dim) */
	uint32_t n;
	size_t n_failed;
};

static void batch_done(struct batch *batch)
{
	free(batch->kept);
	free(batch->features);
}

static void on_result(void *data, size_t i, const struct kamen_result *result)
{
	struct batch *batch = data;
	const uint32_t dim = batch->table->dim;
	struct kept *kept = &batch->kept[i];

	*kept = (struct kept){
		.row = NO_ROW,
		.version = result->version,
		.code = result->code,
		.verdict = result->verdict,
		.novelty = result->novelty,
		.unknown = result->unknown,
		.queue_ns = result->queue_ns,
		.compute_ns = result->compute_ns,
	};
	(void)snprintf(kept->reason, sizeof(kept->reason), "%s", result->reason);
	if (result->code < 0 || !result->embedding || result->n_embedding != dim) {
		batch->n_failed++;
		(void)ctl_fail(batch->ctl, EXIT_FAILED, "%s: %s", batch->images->paths[i],
			*result->reason    ? result->reason
			: result->code < 0 ? strerror(-result->code)
					   : "no feature");
		return;
	}
	/* What is of no class would be shared out among them all the same. */
	if (result->unknown > .5F)
		return;
	kept->row = batch->n++;
	memcpy(batch->features + (size_t)kept->row * dim, result->embedding, dim * sizeof(float));
}

static int print_all(const struct batch *batch, const struct prototype_answer *answers,
	const struct opta_report *report)
{
	int status = EXIT_DONE;

	for (size_t i = 0; i < batch->images->n && status == EXIT_DONE; i++) {
		const struct kept *kept = &batch->kept[i];
		const struct prototype_answer *answer =
			kept->row == NO_ROW ? NULL : &answers[kept->row];
		json_t *o = json_object();

		(void)json_object_set_new(o, "file", json_string(batch->images->paths[i]));
		(void)json_object_set_new(o, "mask", json_integer(kept->version));
		(void)json_object_set_new(o, "label",
			answer ? json_string(batch->table->names[answer->class]) : json_null());
		(void)json_object_set_new(
			o, "score", output_number(answer ? (double)answer->confidence : NAN));
		(void)json_object_set_new(o, "unknown", output_number((double)kept->unknown));
		(void)json_object_set_new(o, "balanced",
			batch->table->n < 2 ? json_null() : json_boolean(report->is_balanced));
		(void)json_object_set_new(o, "imbalance",
			output_number(batch->table->n < 2 ? NAN : report->imbalance));
		(void)json_object_set_new(
			o, "verdict", json_string(kamen_verdict_name(kept->verdict)));
		(void)json_object_set_new(o, "reason", json_string(kept->reason));
		(void)json_object_set_new(o, "novelty", output_number((double)kept->novelty));
		(void)json_object_set_new(o, "queue_us", json_real((double)kept->queue_ns * 1e-3));
		(void)json_object_set_new(
			o, "compute_us", json_real((double)kept->compute_ns * 1e-3));
		(void)json_object_set_new(o, "space", output_hex(batch->table->space, SPACE_BYTES));
		(void)json_object_set_new(o, "code", json_integer(kept->code));
		status = output_row(batch->ctl, o, false);
	}
	return status;
}

static int classify(const struct batch *batch)
{
	const struct table *table = batch->table;
	_cleanup_(prototypes_freep) struct prototypes *prototypes = NULL;
	_cleanup_(opta_freep) struct opta *opta = NULL;
	_cleanup_(freep) struct prototype_answer *answers =
		calloc((size_t)batch->n + 1, sizeof(*answers));
	struct opta_report report = { 0 };
	int r = answers ? 0 : -ENOMEM;

	if (r == 0)
		r = prototypes_of_means(&prototypes, table->means, table->n_images, table->n,
			table->dim, table->temperature);
	if (r == 0 && batch->n > 0)
		r = opta_new(&opta, table->n, batch->n, table->dim);
	if (r < 0)
		return ctl_fail(batch->ctl, EXIT_FAILED, "%s",
			r == -EINVAL ? "too many images at once" : strerror(-r));
	if (opta)
		opta_classify(opta, prototypes, batch->features, batch->n, answers, &report);
	return print_all(batch, answers, &report);
}

int infer_opta_run(
	struct ctl *ctl, const char *site, const struct images *images, uint64_t patience_ns)
{
	_cleanup_(table_done) struct table table = { 0 };
	_cleanup_(
		batch_done) struct batch batch = { .ctl = ctl, .images = images, .table = &table };
	struct flow flow = { .patience_ns = patience_ns, .done = on_result, .data = &batch };
	int status = table_ask(ctl, site, &table);

	if (status != EXIT_DONE)
		return status;
	batch.kept = calloc(images->n + 1, sizeof(*batch.kept));
	batch.features = calloc((images->n + 1) * table.dim, sizeof(*batch.features));
	if (!batch.kept || !batch.features)
		return ctl_fail(ctl, EXIT_FAILED, "out of memory");
	/* Classes and features of one space: where the champion changes meanwhile, it is refused. */
	flow.request = (struct kamen_request){
		.verb = KAMEN_INFER,
		.format = KAMEN_ENCODED,
		.site = site,
		.flags = KAMEN_WANT_FEATURE | KAMEN_WANT_SPACE,
	};
	memcpy(flow.request.space, table.space, SPACE_BYTES);
	status = flow_run(ctl, images, &flow);
	if (status == EXIT_DONE)
		status = classify(&batch);
	return status == EXIT_DONE && batch.n_failed > 0 ? EXIT_FAILED : status;
}
