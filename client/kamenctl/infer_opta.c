/* SPDX-License-Identifier: Apache-2.0 */
#include "infer_opta.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "class_table.h"
#include "classify/opta.h"
#include "flow.h"
#include "output.h"
#include "shm_layout.h"

#define NO_ROW UINT32_MAX

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
	const struct class_table *table;
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
		(void)json_object_set_new(
			o, "space", output_hex(batch->table->space, CLASS_TABLE_SPACE));
		(void)json_object_set_new(o, "code", json_integer(kept->code));
		status = output_row(batch->ctl, o, false);
	}
	return status;
}

static int classify(const struct batch *batch)
{
	const struct class_table *table = batch->table;
	_cleanup_(prototypes_freep) struct prototypes *prototypes = NULL;
	_cleanup_(opta_freep) struct opta *opta = NULL;
	_cleanup_(freep) struct prototype_answer *answers =
		calloc((size_t)batch->n + 1, sizeof(*answers));
	struct opta_report report = { 0 };
	int r = answers ? 0 : -ENOMEM;

	if (r == 0)
		r = class_table_prototypes(&prototypes, table);
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
	_cleanup_(class_table_done) struct class_table table = { 0 };
	_cleanup_(
		batch_done) struct batch batch = { .ctl = ctl, .images = images, .table = &table };
	struct flow flow = { .patience_ns = patience_ns, .done = on_result, .data = &batch };
	int status = class_table_ask(ctl, site, &table);

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
	memcpy(flow.request.space, table.space, CLASS_TABLE_SPACE);
	status = flow_run(ctl, images, &flow);
	if (status == EXIT_DONE)
		status = classify(&batch);
	return status == EXIT_DONE && batch.n_failed > 0 ? EXIT_FAILED : status;
}
