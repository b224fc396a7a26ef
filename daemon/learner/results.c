/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "learner/embedding.h"
#include "learner/results.h"

/** The held-out images in the space of one set. */
struct held {
	uint32_t n, width;
	float *rows; /* (n, width) */
};

static void held_done(struct held *held)
{
	free(held->rows);
}

/* References of the learning part; the distances of the held-out part are their scale. */
static int make_reference(struct reference **ret_reference, const struct results_job *job,
	struct slot *slot, const struct mask_set *set, const struct digest *space,
	const struct held *held)
{
	struct images_part part;
	struct image_source learn = images_source(job->images, &part, false, REFERENCE_MAX);
	_cleanup_(reference_freep) struct reference *bare = NULL;
	_cleanup_(freep) float *rows = NULL, *distances = NULL;
	uint32_t width = set->n_out;
	int r;

	r = embedding_of_set(&rows, job->vit, slot, set, job->prep, &learn);
	if (r == 0)
		r = reference_new(&bare, rows, learn.n, NULL, 0, width, space);
	if (r < 0)
		return r;
	distances = malloc((held->n + 1) * sizeof(*distances));
	if (!distances)
		return -ENOMEM;
	for (uint32_t i = 0; i < held->n; i++)
		distances[i] = reference_distance(bare, held->rows + (size_t)i * width);
	return reference_new(ret_reference, rows, learn.n, distances, held->n, width, space);
}

static int embed_held(struct held *ret_held, const struct results_job *job, struct slot *slot,
	const struct mask_set *set)
{
	struct images_part part;
	struct image_source source = images_source(job->images, &part, true, REFERENCE_MAX);

	ret_held->n = source.n;
	ret_held->width = set->n_out;
	return embedding_of_set(&ret_held->rows, job->vit, slot, set, job->prep, &source);
}

/* One set: figures, its reference file, and the held-out images as it sees them. */
static int judge_one(struct judgement *ret_judgement, struct judge_image *images,
	struct held *ret_held, const struct results_job *job, struct slot *slot,
	const struct mask_set *set, int dir_fd, const char *name)
{
	const struct digest prep = prep_digest(job->prep);
	const struct digest space = space_digest(
		vit_digest(job->vit), &set->id, &prep, precision_name(job->precision), "cls");
	_cleanup_(reference_freep) struct reference *reference = NULL;
	_cleanup_(freep) void *data = NULL;
	struct judgement judgement = { 0 };
	struct images_part part;
	struct image_source held = images_judged_source(job->images, &part);
	size_t n_bytes;
	int r = 0;

	if (held.n >= JUDGE_MIN_IMAGES)
		r = judge_views_set(
			&judgement, images, job->vit, slot, set, job->recipe, job->prep, &held);
	if (r == 0)
		r = embed_held(ret_held, job, slot, set);
	if (r == 0)
		r = make_reference(&reference, job, slot, set, &space, ret_held);
	if (r == 0)
		r = reference_encode(reference, &data, &n_bytes);
	if (r == 0)
		r = blob_write(dir_fd, name, data, n_bytes);
	if (r == 0)
		*ret_judgement = judgement;
	return r;
}

/* The head is of the dispatcher's space. */
static int judge_head(float *ret_entropy, const struct results_job *job, struct slot *slot,
	const struct held *candidate)
{
	_cleanup_(held_done) struct held own = { 0 };
	const struct mask_set dispatcher = {
		.width = job->set->width, .n_out = job->set->width, .masks = { job->set->masks[0] }
	};
	const float *rows = candidate->rows;
	int r = 0;

	if (job->set->n_experts > 0) {
		r = embed_held(&own, job, slot, &dispatcher);
		rows = own.rows;
	}
	return r < 0 ? r
		     : judge_entropy(ret_entropy, job->head, job->recipe->temperature, rows,
			       candidate->n);
}

/* What the served embeddings of the held-out images show beside the views. */
static int judge_held(struct results *results, const struct results_job *job, struct slot *slot,
	const struct held *frozen, const struct held *candidate)
{
	_cleanup_(held_done) struct held own = { 0 };
	const struct held *champion = job->champion ? &own : frozen;
	int r = 0;

	if (job->head && candidate->n >= JUDGE_MIN_IMAGES) {
		r = judge_head(&results->entropy, job, slot, candidate);
		results->has_entropy = r == 0;
	}
	if (r < 0 || candidate->n < 2 * JUDGE_NEIGHBOURS)
		return r;
	if (job->champion)
		r = embed_held(&own, job, slot, job->champion);
	if (r == 0)
		r = judge_neighbours(&results->neighbours, candidate->rows, candidate->width,
			champion->rows, champion->width, candidate->n);
	results->has_neighbours = r == 0;
	return r;
}

static int write_set(const struct results_job *job, int dir_fd)
{
	static const char *const names[] = { "candidate.kmask", "candidate.kcas" };
	const struct mask_set_header header = {
		.base = *vit_digest(job->vit),
		.prep = prep_digest(job->prep),
		.seed = job->seed,
		.steps = job->steps,
	};
	const bool is_cascade = job->set->n_experts > 0;
	_cleanup_(freep) void *data = NULL;
	size_t n_bytes;
	int r;

	r = mask_set_encode(job->set, &header, &data, &n_bytes);
	if (r < 0)
		return r;
	/* Of an earlier try at the round, when the site wanted the other kind. */
	if (unlinkat(dir_fd, names[!is_cascade], 0) < 0 && errno != ENOENT)
		return -errno;
	return blob_write(dir_fd, names[is_cascade], data, n_bytes);
}

/* What was left out is not in it: the record is of what was learnt from and judged on. */
static int write_manifest(const struct results_job *job, int dir_fd)
{
	_cleanup_(freep) char *text = NULL;
	size_t n_chars;
	int r = manifest_write(images_manifest(job->images), &text, &n_chars);

	return r < 0 ? r : blob_write(dir_fd, "candidate.manifest", text, n_chars);
}

int results_write(struct results *ret_results, const struct results_job *job, struct diag *diag)
{
	_cleanup_(closep) int dir_fd = open(job->round, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_(mask_set_freep) struct mask_set *base = NULL;
	_cleanup_(slot_freep) struct slot *slot = NULL;
	_cleanup_(held_done) struct held of_frozen = { 0 }, of_candidate = { 0 };
	struct judge_image frozen[JUDGE_MAX_IMAGES], candidate[JUDGE_MAX_IMAGES];
	struct results results = { 0 };
	int r;

	if (dir_fd < 0)
		return diag_set(diag, errno, "%s: %s", job->round, strerror(errno));
	r = mask_set_of(&base, NULL, vit_layout(job->vit), vit_shape(job->vit)->width);
	if (r == 0)
		r = vit_slot_new(&slot, job->vit, slot_use_in(SLOT_INFER, job->precision));
	if (r == 0)
		r = judge_one(
			&results.frozen, frozen, &of_frozen, job, slot, base, dir_fd, "base.kref");
	if (r == 0)
		r = judge_one(&results.candidate, candidate, &of_candidate, job, slot, job->set,
			dir_fd, "candidate.kref");
	if (r == 0)
		r = judge_held(&results, job, slot, &of_frozen, &of_candidate);
	if (r == 0)
		r = few_shot_judge(&results.few_shot, job, slot, base);
	if (r == 0 && results.candidate.n > 0)
		judge_compare(&results.candidate, candidate, frozen);
	if (r == 0)
		r = write_set(job, dir_fd);
	if (r == 0)
		r = write_manifest(job, dir_fd);
	if (r < 0)
		return diag_set(
			diag, -r, "judging: %s %s", strerror(-r), images_error(job->images));
	*ret_results = results;
	return 0;
}
