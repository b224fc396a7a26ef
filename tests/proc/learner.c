/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "ingest/kimg.h"
#include "learner_harness.h"

#define STEPS 40u /* fewer than 34 flip nothing */
#define SEED 7u

static void *read_file(const struct harness *harness, const char *file, size_t *ret_n_bytes)
{
	void *data = NULL;
	char path[128];

	assert_int_equal(
		blob_read(AT_FDCWD, harness_path(harness, file, path), 1 << 26, &data, ret_n_bytes),
		0);
	return data;
}

static struct mask *read_mask(
	const struct harness *harness, struct vit *vit, struct kmask_header *ret_header)
{
	struct diag diag = { "" };
	struct mask *mask = NULL;
	size_t n_bytes;
	_cleanup_(freep) void *data = read_file(harness, "round/candidate.kmask", &n_bytes);
	int r = kmask_decode(
		&mask, ret_header, vit_layout(vit), vit_digest(vit), data, n_bytes, &diag);

	if (r < 0)
		fail_msg("%s", diag.text);
	return mask;
}

static struct reference *read_reference(const struct harness *harness, const char *file)
{
	struct reference *reference = NULL;
	size_t n_bytes;
	_cleanup_(freep) void *data = read_file(harness, file, &n_bytes);

	assert_int_equal(reference_decode(&reference, data, n_bytes, NULL), 0);
	return reference;
}

/* What serving would answer for every learnt image equals the reference that the learner wrote. */
static void assert_reference(
	const struct harness *harness, struct vit *vit, const struct mask *mask, const char *file)
{
	_cleanup_(reference_freep) struct reference *reference = read_reference(harness, file);
	_cleanup_(resize_scratch_freep) struct resize_scratch *scratch = NULL;
	_cleanup_(vit_plan_freep) struct vit_plan *plan = NULL;
	_cleanup_(slot_freep) struct slot *slot = NULL;
	const struct prep prep = harness_prep();
	const struct digest prep_id = prep_digest(&prep), bits = mask_digest(mask);
	const struct digest space =
		space_digest(base_digest(harness->base), &bits, &prep_id, "f32", "cls");
	uint32_t width = vit_shape(vit)->width, at = 0;
	float row[64];

	assert_true(digest_equal(&space, &reference->space));
	assert_int_equal(reference->dim, width);
	assert_int_equal(vit_slot_new(&slot, vit, SLOT_INFER), 0);
	assert_int_equal(slot_apply(slot, mask), 0);
	assert_int_equal(vit_plan_new(&plan, vit, 1, HARNESS_PX, PRECISION_F32), 0);
	assert_int_equal(resize_scratch_new(&scratch), 0);
	for (uint32_t i = 0; i < harness->manifest.n; i++) {
		_cleanup_(freep) void *data = NULL;
		_cleanup_(image_freep) struct image *image = NULL;
		struct image_view view;
		float length = 0;
		char name[160];
		size_t n_bytes;

		if (harness->manifest.entries[i].held)
			continue;
		(void)snprintf(name, sizeof(name), "replay/%s", harness->manifest.entries[i].blob);
		data = read_file(harness, name, &n_bytes);
		assert_int_equal(kimg_decode(&image, data, n_bytes, NULL), 0);
		view = image_view(image);
		assert_int_equal(prep_apply(&prep, &view, vit_plan_input(plan), scratch), 0);
		assert_int_equal(vit_forward(plan, slot, row), 0);
		for (uint32_t j = 0; j < width; j++)
			length += row[j] * row[j];
		for (uint32_t j = 0; j < width; j++)
			assert_true(fabsf(row[j] / sqrtf(length) -
					    reference->embeddings[at * width + j]) < 1e-5f);
		at++;
	}
	assert_int_equal(at, reference->n);
	assert_int_equal(reference->n_held, harness->manifest.n - at);
}

static void assert_done(const Kamen__LearnDone *done, const struct mask *mask)
{
	assert_string_equal(done->site, "a");
	assert_int_equal(done->version, 1);
	assert_int_equal(done->steps, STEPS);
	assert_int_equal(done->seed, SEED);
	assert_int_equal(done->n_images, HARNESS_IMAGES);
	assert_true(done->loss_ratio > 0 && done->loss_ratio < 2);
	assert_true(fabs(done->density - mask_density(mask)) < 1e-12);
	assert_true(fabs(done->lowest_density - mask_lowest_density(mask)) < 1e-12);
	assert_true(done->n_flips > 0);
	/* 12 blocks of time, two of them held out. */
	assert_int_equal(done->frozen->n, 17);
	assert_int_equal(done->candidate->n, 17);
	assert_true(done->frozen->margin != done->candidate->margin);
	assert_true(done->frozen->retrieval >= 0 && done->frozen->retrieval <= 1);
	assert_true(done->candidate->effective_rank > 1);
	assert_int_equal(done->manifest_digest.len, DIGEST_BYTES);
	assert_int_equal(done->recipe_digest.len, DIGEST_BYTES);
}

static void a_job_becomes_progress_figures_and_files(void **state)
{
	struct harness *harness = *state;
	const struct prep prep = harness_prep();
	const struct digest prep_id = prep_digest(&prep);
	_cleanup_(vit_freep) struct vit *vit = NULL;
	_cleanup_(mask_freep) struct mask *mask = NULL, *all = NULL;
	const Kamen__RoleMessage *message;
	struct digest manifest = manifest_digest(&harness->manifest);
	struct kmask_header header;
	struct harness_job job;

	harness_start(harness, "idle");
	harness_job(harness, &job, STEPS, SEED);
	harness_send_job(harness, &job);
	for (uint32_t step = 1; step <= STEPS; step++) {
		message = harness_receive(harness);
		assert_non_null(message);
		if (message->kind_case == KAMEN__ROLE_MESSAGE__KIND_FAILED)
			fail_msg("%s", message->failed->reason);
		assert_int_equal(message->kind_case, KAMEN__ROLE_MESSAGE__KIND_PROGRESS);
		assert_int_equal(message->progress->step, step);
		assert_int_equal(message->progress->steps, STEPS);
	}
	message = harness_receive(harness);
	assert_int_equal(message->kind_case, KAMEN__ROLE_MESSAGE__KIND_DONE);

	assert_int_equal(vit_new(&vit, harness->base, NULL, NULL), 0);
	mask = read_mask(harness, vit, &header);
	assert_int_equal(header.seed, SEED);
	assert_int_equal(header.steps, STEPS);
	assert_true(digest_equal(&header.prep, &prep_id));
	assert_done(message->done, mask);
	assert_int_equal(header.n_elements - header.n_kept, message->done->n_flips);
	assert_memory_equal(message->done->manifest_digest.data, manifest.bytes, DIGEST_BYTES);
	assert_int_equal(mask_new(&all, vit_layout(vit)), 0);
	assert_reference(harness, vit, mask, "round/candidate.kref");
	assert_reference(harness, vit, all, "round/base.kref");
}

static void the_same_seed_gives_the_same_bits(void **state)
{
	struct harness *harness = *state;
	struct digest first, again, other;

	harness_start(harness, "100");
	first = harness_learn(harness, STEPS, SEED);
	harness_clear_round(harness);
	again = harness_learn(harness, STEPS, SEED);
	harness_clear_round(harness);
	other = harness_learn(harness, STEPS, SEED + 1);
	assert_true(digest_equal(&first, &again));
	assert_false(digest_equal(&first, &other));
}

static void wait_for_step(struct harness *harness, uint32_t step)
{
	const Kamen__RoleMessage *message;

	do {
		message = harness_receive(harness);
		assert_non_null(message);
		if (message->kind_case == KAMEN__ROLE_MESSAGE__KIND_FAILED)
			fail_msg("%s", message->failed->reason);
		assert_int_equal(message->kind_case, KAMEN__ROLE_MESSAGE__KIND_PROGRESS);
	} while (message->progress->step < step);
}

static void a_killed_round_goes_on_to_the_same_bits(void **state)
{
	struct harness *harness = *state;
	const Kamen__RoleMessage *message;
	struct digest whole, resumed;
	struct harness_job job;
	uint32_t n_progress;

	harness_start(harness, "100");
	whole = harness_learn(harness, STEPS, SEED);
	harness_clear_round(harness);
	harness_job(harness, &job, STEPS, SEED);
	harness_send_job(harness, &job);
	wait_for_step(harness, 7);
	harness_kill(harness);

	harness_start(harness, "100");
	harness_send_job(harness, &job);
	message = harness_finish(harness, &n_progress);
	assert_int_equal(message->kind_case, KAMEN__ROLE_MESSAGE__KIND_DONE);
	/* From the checkpoint of step 5, or of step 10 where the kill came late. */
	assert_true(n_progress == STEPS - 5 || n_progress == STEPS - 10);
	resumed = harness_file_digest(harness, "round/candidate.kmask");
	assert_true(digest_equal(&whole, &resumed));
}

#define EXPERTS_STEPS 7u

/* Large steps, so that bits flip in few. */
static void experts_job(const struct harness *harness, struct harness_job *job)
{
	harness_job(harness, job, EXPERTS_STEPS, SEED);
	job->message.changes =
		(char *)"experts=2 cascade=conditional score_lr=.29 batch=16 n_small=0";
}

/* Whole, also where a component is too small to learn from. */
static const Kamen__LearnDone *finish_experts(struct harness *harness, uint32_t *ret_n_progress)
{
	const Kamen__RoleMessage *message;
	uint32_t step = 0;

	for (*ret_n_progress = 0;; ++*ret_n_progress) {
		message = harness_receive(harness);
		assert_non_null(message);
		if (message->kind_case == KAMEN__ROLE_MESSAGE__KIND_FAILED)
			fail_msg("%s", message->failed->reason);
		if (message->kind_case != KAMEN__ROLE_MESSAGE__KIND_PROGRESS)
			break;
		assert_true(message->progress->step >= step);
		step = message->progress->step;
		assert_int_equal(message->progress->steps, 3 * EXPERTS_STEPS);
		assert_true(message->progress->seconds_left >= 0);
	}
	assert_int_equal(message->kind_case, KAMEN__ROLE_MESSAGE__KIND_DONE);
	assert_int_equal(step, 3 * EXPERTS_STEPS);
	return message->done;
}

static void experts_become_a_cascade_and_survive_a_kill(void **state)
{
	struct harness *harness = *state;
	_cleanup_(reference_freep) struct reference *reference = NULL;
	_cleanup_(mask_set_freep) struct mask_set *set = NULL;
	_cleanup_(vit_freep) struct vit *vit = NULL;
	_cleanup_(freep) void *data = NULL;
	const struct prep prep = harness_prep();
	const struct digest prep_id = prep_digest(&prep);
	const Kamen__LearnDone *done;
	struct digest whole, space;
	struct mask_set_header header;
	struct harness_job job;
	struct diag diag = { "" };
	uint32_t n_progress;
	size_t n_bytes;
	char path[128];

	harness_start(harness, "100");
	experts_job(harness, &job);
	harness_send_job(harness, &job);
	done = finish_experts(harness, &n_progress);
	assert_int_equal(vit_new(&vit, harness->base, NULL, NULL), 0);
	data = read_file(harness, "round/candidate.kcas", &n_bytes);
	if (mask_set_decode(&set, &header, vit_layout(vit), vit_digest(vit), vit_shape(vit)->width,
		    data, n_bytes, &diag) < 0)
		fail_msg("%s", diag.text);
	assert_int_equal(set->n_experts, 2);
	assert_int_equal(set->mode, CASCADE_CONDITIONAL);
	assert_memory_equal(done->mask_digest.data, set->id.bytes, DIGEST_BYTES);
	assert_int_equal(done->n_flips, mask_set_n_flips(set));
	assert_true(done->n_flips > 0);
	assert_non_null(strstr(done->recipe, "experts=2"));
	/* Judged as it is served: by the same figures, in its own space. */
	assert_int_equal(done->candidate->n, done->frozen->n);
	assert_true(done->frozen->margin != done->candidate->margin);
	reference = read_reference(harness, "round/candidate.kref");
	space = space_digest(base_digest(harness->base), &set->id, &prep_id, "f32", "cls");
	assert_true(digest_equal(&space, &reference->space));
	assert_int_equal(reference->dim, set->n_out);
	whole = set->id;

	harness_clear_round(harness);
	harness_send_job(harness, &job);
	wait_for_step(harness, 2 * EXPERTS_STEPS + 2);
	harness_kill(harness);
	harness_start(harness, "100");
	harness_send_job(harness, &job);
	done = finish_experts(harness, &n_progress);
	assert_memory_equal(done->mask_digest.data, whole.bytes, DIGEST_BYTES);
	/* The dispatcher's last steps, then what the second expert had left. */
	print_message("%u steps were left\n", n_progress);
	assert_true(n_progress < 2 * EXPERTS_STEPS);

	/* With another recipe in the same folder nothing of that is taken up. */
	harness_job(harness, &job, EXPERTS_STEPS, SEED);
	job.message.changes = (char *)"score_lr=.29 batch=16 n_small=0";
	harness_send_job(harness, &job);
	assert_int_equal(
		harness_finish(harness, &n_progress)->kind_case, KAMEN__ROLE_MESSAGE__KIND_DONE);
	assert_int_equal(n_progress, EXPERTS_STEPS);
	assert_int_equal(access(harness_path(harness, "round/candidate.kmask", path), F_OK), 0);
	assert_int_equal(access(harness_path(harness, "round/candidate.kcas", path), F_OK), -1);
}

static void serve_going_away_leaves_a_checkpoint(void **state)
{
	struct harness *harness = *state;
	const Kamen__RoleMessage *message;
	struct harness_job job;
	uint32_t n_progress;
	char path[128];

	harness_start(harness, "100");
	/* Far more steps than there is time for. */
	harness_job(harness, &job, 5000, SEED);
	harness_send_job(harness, &job);
	wait_for_step(harness, 2);
	assert_int_equal(shutdown(harness->sock, SHUT_RDWR), 0);
	assert_int_equal(harness_wait(harness), 0);
	assert_int_equal(access(harness_path(harness, "round/checkpoint", path), F_OK), 0);

	/* It does not fit another job: that one begins anew. */
	harness_start(harness, "100");
	harness_job(harness, &job, STEPS, SEED);
	harness_send_job(harness, &job);
	message = harness_finish(harness, &n_progress);
	assert_int_equal(message->kind_case, KAMEN__ROLE_MESSAGE__KIND_DONE);
	assert_int_equal(n_progress, STEPS);
	assert_int_equal(shutdown(harness->sock, SHUT_RDWR), 0);
	assert_int_equal(harness_wait(harness), 0);
}

static void assert_failed(
	struct harness *harness, const struct harness_job *job, const char *reason)
{
	const Kamen__RoleMessage *message;

	harness_send_job(harness, job);
	message = harness_finish(harness, NULL);
	assert_non_null(message);
	assert_int_equal(message->kind_case, KAMEN__ROLE_MESSAGE__KIND_FAILED);
	assert_string_equal(message->failed->site, "a");
	if (!strstr(message->failed->reason, reason))
		fail_msg("'%s' does not say '%s'", message->failed->reason, reason);
}

/* What a site wants otherwise, and too little memory, show in the recipe and in the mask. */
static void a_job_may_change_the_recipe(void **state)
{
	struct harness *harness = *state;
	const Kamen__RoleMessage *message;
	uint8_t first[DIGEST_BYTES];
	struct harness_job job;

	harness_start(harness, "100");
	harness_job(harness, &job, 1, SEED);
	job.message.changes = (char *)"mask=topk keep=.75";
	harness_send_job(harness, &job);
	message = harness_finish(harness, NULL);
	assert_int_equal(message->kind_case, KAMEN__ROLE_MESSAGE__KIND_DONE);
	assert_true(fabs(message->done->density - .75) < .001);
	memcpy(first, message->done->recipe_digest.data, DIGEST_BYTES);
	job.message.has_memory = true;
	job.message.memory = 1 << 20;
	harness_send_job(harness, &job);
	message = harness_finish(harness, NULL);
	assert_int_equal(message->kind_case, KAMEN__ROLE_MESSAGE__KIND_DONE);
	assert_true(fabs(message->done->density - .75) < .001);
	assert_memory_not_equal(first, message->done->recipe_digest.data, DIGEST_BYTES);
	assert_int_equal(shutdown(harness->sock, SHUT_RDWR), 0);
	assert_int_equal(harness_wait(harness), 0);
}

/* What tells hard patches goes with the mask that was kept; a round of another kind leaves none. */
static void an_hpm_round_leaves_a_khard_of_its_mask(void **state)
{
	struct harness *harness = *state;
	_cleanup_(vit_freep) struct vit *vit = NULL;
	_cleanup_(mask_freep) struct mask *mask = NULL;
	_cleanup_(freep) void *data = NULL;
	const Kamen__RoleMessage *message;
	struct hardness_info info;
	struct kmask_header header;
	struct harness_job job;
	struct digest first, again;
	struct diag diag = { "" };
	size_t n_bytes;
	char path[128];

	harness_start(harness, "100");
	harness_job(harness, &job, STEPS, SEED);
	job.message.objective = (char *)"hpm";
	job.message.changes = (char *)"score_lr=.1 hpm_width=32";
	harness_send_job(harness, &job);
	message = harness_finish(harness, NULL);
	if (message->kind_case == KAMEN__ROLE_MESSAGE__KIND_FAILED)
		fail_msg("%s", message->failed->reason);
	assert_int_equal(message->kind_case, KAMEN__ROLE_MESSAGE__KIND_DONE);
	assert_int_equal(vit_new(&vit, harness->base, NULL, NULL), 0);
	mask = read_mask(harness, vit, &header);
	data = read_file(harness, "round/candidate.khard", &n_bytes);
	if (hardness_check(&info, data, n_bytes, &diag) < 0)
		fail_msg("%s", diag.text);
	assert_true(digest_equal(&info.mask, &header.mask));
	assert_true(digest_equal(&info.base, vit_digest(vit)));
	first = harness_file_digest(harness, "round/candidate.khard");

	/* Over a kill the same bytes; a file of another mask does not stay. */
	harness_clear_round(harness);
	harness_send_job(harness, &job);
	wait_for_step(harness, STEPS / 2);
	harness_kill(harness);
	/* A mask of before may be taken in the end, but with what the round says then. */
	harness_path(harness, "round/candidate.khard", path);
	assert_int_equal(access(path, F_OK), -1);
	harness_start(harness, "100");
	harness_send_job(harness, &job);
	assert_int_equal(harness_finish(harness, NULL)->kind_case, KAMEN__ROLE_MESSAGE__KIND_DONE);
	again = harness_file_digest(harness, "round/candidate.khard");
	assert_true(digest_equal(&first, &again));
	(void)harness_learn(harness, STEPS, SEED);
	assert_int_equal(access(harness_path(harness, "round/candidate.khard", path), F_OK), -1);
}

static void a_cancelled_job_makes_room_for_the_next(void **state)
{
	struct harness *harness = *state;
	const Kamen__RoleMessage *message;
	struct harness_job job;

	harness_start(harness, "50");
	harness_job(harness, &job, 5000, SEED);
	harness_send_job(harness, &job);
	wait_for_step(harness, 1);
	/* A second job meanwhile is refused, the first goes on. */
	assert_failed(harness, &job, "busy");
	/* The next one may be on its way before the step ends at which the first is left. */
	harness_send_cancel(harness);
	harness_job(harness, &job, STEPS, SEED);
	job.message.version = 2;
	harness_send_job(harness, &job);
	message = harness_finish(harness, NULL);
	assert_int_equal(message->kind_case, KAMEN__ROLE_MESSAGE__KIND_DONE);
	assert_int_equal(message->done->version, 2);
}

static void bad_jobs_fail_with_a_reason_and_cost_nothing_else(void **state)
{
	struct harness *harness = *state;
	struct harness_job job, bad;
	char path[128];

	harness_start(harness, "100");
	harness_job(harness, &job, STEPS, SEED);
	bad = job;
	bad.message.prep = &bad.prep;
	bad.prep.input_px = 33;
	assert_failed(harness, &bad, "input_px");
	bad.prep = job.prep;
	bad.prep.resize = (char *)"stretch";
	assert_failed(harness, &bad, "stretch");
	bad.prep = job.prep;
	bad.prep.n_mean = 2;
	assert_failed(harness, &bad, "mean");
	bad = job;
	bad.message.objective = (char *)"labels";
	assert_failed(harness, &bad, "labels");
	bad.message.objective = (char *)"supervised";
	assert_failed(harness, &bad, "labelled images that are not held out; there are: none");
	bad = job;
	bad.message.changes = (char *)"last_block=99";
	assert_failed(harness, &bad, "last_block");
	bad = job;
	bad.message.manifest = (char *)"/nowhere";
	assert_failed(harness, &bad, "/nowhere");
	bad.message.manifest = harness_path(harness, "model.safetensors", path);
	assert_failed(harness, &bad, "manifest: line 1");
	bad = job;
	bad.message.replay = (char *)"/nowhere";
	assert_failed(harness, &bad, "/nowhere");
	bad = job;
	bad.message.round = (char *)"/nowhere";
	assert_failed(harness, &bad, "/nowhere");
	bad = job;
	bad.message.judge_mask = harness_path(harness, "manifest", path);
	assert_failed(harness, &bad, "");
	(void)harness_learn(harness, STEPS, SEED);
}

static void damage(struct harness *harness, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		char file[160], path[128];
		int fd;

		(void)snprintf(file, sizeof(file), "replay/%s", harness->manifest.entries[i].blob);
		fd = open(harness_path(harness, file, path), O_WRONLY);
		assert_int_equal(pwrite(fd, "\1\2\3\4", 4, 99), 4);
		assert_int_equal(close(fd), 0);
	}
}

/* The list beside the mask is of what its digest says. */
static void assert_kept_manifest(struct harness *harness, const struct digest *used)
{
	_cleanup_(manifest_done) struct manifest manifest = { 0 };
	_cleanup_(freep) void *text = NULL;
	struct digest digest;
	char path[128];
	size_t n;

	assert_int_equal(
		blob_read(AT_FDCWD, harness_path(harness, "round/candidate.manifest", path),
			1 << 20, &text, &n),
		0);
	assert_int_equal(manifest_read(&manifest, text, n, NULL), 0);
	digest = manifest_digest(&manifest);
	assert_true(digest_equal(&digest, used));
}

static void damaged_images_are_left_out_and_recorded(void **state)
{
	struct harness *harness = *state;
	const Kamen__RoleMessage *message;
	struct digest used;
	struct harness_job job;

	damage(harness, 3);
	memmove(harness->manifest.entries, harness->manifest.entries + 3,
		(HARNESS_IMAGES - 3) * sizeof(*harness->manifest.entries));
	harness->manifest.n -= 3;
	used = manifest_digest(&harness->manifest);
	harness_start(harness, "100");
	harness_job(harness, &job, STEPS, SEED);
	harness_send_job(harness, &job);
	message = harness_finish(harness, NULL);
	assert_int_equal(message->kind_case, KAMEN__ROLE_MESSAGE__KIND_DONE);
	assert_int_equal(message->done->n_images, HARNESS_IMAGES - 3);
	assert_memory_equal(message->done->manifest_digest.data, used.bytes, DIGEST_BYTES);
	assert_kept_manifest(harness, &used);
	damage(harness, 60);
	assert_failed(harness, &job, "only 37 of 100 images");
}

static void a_foreign_mask_is_judged_as_our_own(void **state)
{
	struct harness *harness = *state;
	const Kamen__RoleMessage *message;
	Kamen__Judgement candidate;
	struct harness_job job;
	struct digest own, judged;
	char from[128], path[128];
	uint64_t n_flips;

	harness_start(harness, "100");
	harness_job(harness, &job, STEPS, SEED);
	harness_send_job(harness, &job);
	message = harness_finish(harness, NULL);
	assert_int_equal(message->kind_case, KAMEN__ROLE_MESSAGE__KIND_DONE);
	candidate = *message->done->candidate;
	n_flips = message->done->n_flips;
	own = harness_file_digest(harness, "round/candidate.kmask");
	assert_int_equal(rename(harness_path(harness, "round/candidate.kmask", from),
				 harness_path(harness, "import.kmask", path)),
		0);
	harness_clear_round(harness);

	job.message.judge_mask = path;
	job.message.has_steps = false;
	harness_send_job(harness, &job);
	message = harness_finish(harness, NULL);
	if (message->kind_case == KAMEN__ROLE_MESSAGE__KIND_FAILED)
		fail_msg("%s", message->failed->reason);
	assert_int_equal(message->kind_case, KAMEN__ROLE_MESSAGE__KIND_DONE);
	assert_false(message->done->has_loss_ratio);
	assert_int_equal(message->done->n_flips, n_flips);
	assert_int_equal(message->done->steps, STEPS);
	assert_true(message->done->candidate->retrieval == candidate.retrieval);
	assert_true(message->done->candidate->margin == candidate.margin);
	judged = harness_file_digest(harness, "round/candidate.kmask");
	assert_true(digest_equal(&own, &judged));
}

#define with_learner(test) cmocka_unit_test_setup_teardown(test, harness_setup, harness_teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		with_learner(a_job_becomes_progress_figures_and_files),
		with_learner(the_same_seed_gives_the_same_bits),
		with_learner(a_killed_round_goes_on_to_the_same_bits),
		with_learner(experts_become_a_cascade_and_survive_a_kill),
		with_learner(serve_going_away_leaves_a_checkpoint),
		with_learner(a_job_may_change_the_recipe),
		with_learner(an_hpm_round_leaves_a_khard_of_its_mask),
		with_learner(a_cancelled_job_makes_room_for_the_next),
		with_learner(bad_jobs_fail_with_a_reason_and_cost_nothing_else),
		with_learner(damaged_images_are_left_out_and_recorded),
		with_learner(a_foreign_mask_is_judged_as_our_own),
	};

	if (argc > 2 && strcmp(argv[1], "--learner") == 0)
		return harness_learner(argv[2]);
	/* As serve does it for the role: waiting threads must not spin beside others. */
	(void)setenv("OMP_WAIT_POLICY", "passive", 1);
	(void)setenv("OMP_NUM_THREADS", "2", 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
