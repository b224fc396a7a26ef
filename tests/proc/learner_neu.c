/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <string.h>
#include <cmocka.h>

#include "learn/folder.h"
#include "learner_harness.h"
#include "site/gate.h"

/* Twice the input size, as ingest stores it. */
#define SHORTER 224u
#define PX 112u
#define SEED 1u

static const char *shared(void)
{
	const char *path = getenv("KAMEN_SHARED");

	return path ? path : "../shared";
}

static void fill(struct harness *harness)
{
	_cleanup_(folder_freep) struct folder *folder = NULL;
	struct diag diag = { "" };
	char path[512];

	(void)snprintf(path, sizeof(path), "%s/data/neu", shared());
	if (folder_open(&folder, path, FOLDER_LEARN, SHORTER, &diag) < 0)
		fail_msg("%s", diag.text);
	/* In order of arrival: class after class, the hardest case for a split by time. */
	for (uint32_t i = 0; i < folder->n; i++) {
		const struct image_view view = image_view(folder->images[i]);

		assert_int_equal(harness_add_image(harness, &view), 0);
	}
	assert_int_equal(harness_seal_manifest(harness), 0);
	(void)snprintf(
		path, sizeof(path), "%s/models/vit_tiny_patch16_224/model.safetensors", shared());
	if (base_load(&harness->base, path, &diag) < 0)
		fail_msg("%s", diag.text);
}

static struct judgement_row judgement(const Kamen__Judgement *message)
{
	return (struct judgement_row){ .n = message->n,
		.retrieval = message->retrieval,
		.margin = message->margin,
		.effective_rank = message->effective_rank,
		.retrieval_error = message->retrieval_error,
		.margin_error = message->margin_error };
}

/* Labelled figures of the held part, which the learner never saw. */
static struct figures evaluate(struct vit *vit, const struct mask *mask, struct folder *folder)
{
	_cleanup_(slot_freep) struct slot *slot = NULL;
	_cleanup_(freep) float *rows = NULL;
	const struct image_source source = folder_source(folder);
	const uint32_t width = vit_shape(vit)->width;
	struct prep prep = harness_prep();
	struct figures figures;

	prep.input_px = PX;
	rows = malloc((size_t)folder->n * width * sizeof(*rows));
	assert_non_null(rows);
	assert_int_equal(vit_slot_new(&slot, vit, SLOT_INFER), 0);
	assert_int_equal(slot_apply(slot, mask), 0);
	assert_int_equal(judge_embed(rows, vit, slot, &prep, &source), 0);
	assert_int_equal(figures_compute(&figures, NULL, rows, folder->labels, folder->n, width,
				 folder->n_names, SEED),
		0);
	(void)printf("  %s knn %.3f shot1 %.3f shot5 %.3f\n", mask ? "adapted" : "frozen ",
		figures.knn, figures.shot1, figures.shot5);
	return figures;
}

/* Adapted against frozen, by at least the half of what is expected on average over seeds. */
static void assert_better(const struct harness *harness)
{
	_cleanup_(folder_freep) struct folder *folder = NULL;
	_cleanup_(vit_freep) struct vit *vit = NULL;
	_cleanup_(mask_freep) struct mask *mask = NULL;
	_cleanup_(freep) void *data = NULL;
	struct figures frozen, adapted;
	struct kmask_header header;
	char path[512];
	size_t n_bytes;

	(void)snprintf(path, sizeof(path), "%s/data/neu", shared());
	assert_int_equal(folder_open(&folder, path, FOLDER_HELD, SHORTER, NULL), 0);
	assert_int_equal(vit_new(&vit, harness->base, NULL, NULL), 0);
	assert_int_equal(blob_read(AT_FDCWD, harness_path(harness, "round/candidate.kmask", path),
				 1 << 26, &data, &n_bytes),
		0);
	assert_int_equal(
		kmask_decode(&mask, &header, vit_layout(vit), vit_digest(vit), data, n_bytes, NULL),
		0);
	frozen = evaluate(vit, NULL, folder);
	adapted = evaluate(vit, mask, folder);
	(void)printf("  %zu bytes of mask\n", n_bytes);
	assert_true(adapted.knn > frozen.knn + .015);
	assert_true(adapted.shot1 > frozen.shot1 + .065);
	assert_true(adapted.shot5 > frozen.shot5 + .025);
}

static struct version_row row_of(const Kamen__LearnDone *done)
{
	return (struct version_row){ .density = done->density,
		.lowest_density = done->lowest_density,
		.loss_ratio = done->loss_ratio,
		.n_flips = done->n_flips,
		.frozen = judgement(done->frozen),
		.candidate = judgement(done->candidate) };
}

static void a_mask_learnt_on_steel_passes_the_gate(void **state)
{
	struct harness *harness = *state;
	const Kamen__RoleMessage *message;
	struct harness_job job;
	struct version_row row;

	fill(harness);
	harness_start(harness, "100");
	harness_job(harness, &job, 50, SEED);
	job.prep.input_px = PX;
	harness_send_job(harness, &job);
	while ((message = harness_receive(harness)) &&
		message->kind_case == KAMEN__ROLE_MESSAGE__KIND_PROGRESS)
		(void)printf("step %u loss ratio %.3f density %.5f lowest %.3f\n",
			message->progress->step, (double)message->progress->loss_ratio,
			message->progress->density, message->progress->lowest_density);
	assert_non_null(message);
	if (message->kind_case == KAMEN__ROLE_MESSAGE__KIND_FAILED)
		fail_msg("%s", message->failed->reason);
	assert_int_equal(message->kind_case, KAMEN__ROLE_MESSAGE__KIND_DONE);
	row = row_of(message->done);
	gate_decide(&row);
	(void)printf("%.0f s, loss ratio %.3f, density %.5f, lowest %.3f, %u held out\n"
		     "  frozen    retrieval %.3f margin %.3f rank %.1f\n"
		     "  candidate retrieval %.3f margin %.3f rank %.1f\n%s\n",
		message->done->seconds, row.loss_ratio, row.density, row.lowest_density,
		row.frozen.n, (double)row.frozen.retrieval, (double)row.frozen.margin,
		(double)row.frozen.effective_rank, (double)row.candidate.retrieval,
		(double)row.candidate.margin, (double)row.candidate.effective_rank, row.reasons);
	assert_better(harness);
	assert_true(row.passed);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_mask_learnt_on_steel_passes_the_gate,
			harness_setup_empty, harness_teardown),
	};
	char path[512];

	if (argc > 2 && strcmp(argv[1], "--learner") == 0)
		return harness_learner(argv[2]);
	(void)snprintf(path, sizeof(path), "%s/data/neu", shared());
	if (access(path, R_OK) < 0) {
		(void)fprintf(stderr, "skipped: no %s (set KAMEN_SHARED)\n", path);
		return 77;
	}
	(void)setenv("OMP_WAIT_POLICY", "passive", 1);
	(void)setenv("OMP_NUM_THREADS", "2", 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
