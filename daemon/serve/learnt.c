/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/learnt.h"

#include <errno.h>
#include <fcntl.h>

#include "serve/limits.h"
#include "serve/reproduce.h"
#include "serve/serve.h"

static struct judgement_row read_judgement(const Kamen__Judgement *j)
{
	if (!j)
		return (struct judgement_row){ 0 };
	return (struct judgement_row){
		.n = j->n,
		.retrieval = j->retrieval,
		.margin = j->margin,
		.effective_rank = j->effective_rank,
		.retrieval_error = j->retrieval_error,
		.margin_error = j->margin_error,
		.has_entropy = j->has_prototype_entropy,
		.has_neighbours = j->has_neighbours,
		.entropy = j->prototype_entropy,
		.neighbours = j->neighbours,
	};
}

static struct shots_row read_shots(
	const Kamen__Judgement *frozen, const Kamen__Judgement *candidate)
{
	if (!frozen || !candidate || candidate->labelled == 0)
		return (struct shots_row){ .n = 0 };
	return (struct shots_row){
		.n = candidate->labelled,
		.n_classes = candidate->classes,
		.frozen1 = (double)frozen->shot1,
		.frozen5 = (double)frozen->shot5,
		.candidate1 = (double)candidate->shot1,
		.candidate5 = (double)candidate->shot5,
		.lo1 = (double)candidate->shot1_diff_lo,
		.hi1 = (double)candidate->shot1_diff_hi,
		.lo5 = (double)candidate->shot5_diff_lo,
		.hi5 = (double)candidate->shot5_diff_hi,
	};
}

static struct digest read_digest(bool has, const ProtobufCBinaryData *data)
{
	struct digest digest = { { 0 } };

	if (has && data->len == DIGEST_BYTES)
		memcpy(digest.bytes, data->data, DIGEST_BYTES);
	return digest;
}

static int read_file(
	const char *path, size_t limit, void **ret_data, size_t *ret_n, struct diag *diag)
{
	int r = blob_read(AT_FDCWD, path, limit, ret_data, ret_n);
	return r < 0 ? diag_set(diag, -r, "%s: %s", path, strerror(-r)) : 0;
}

/* Everything that the row says about the mask comes from the mask, not from who brought it. */
static int verify_mask(struct serve *serve, const struct round_job *job, struct version_row *row,
	uint32_t *ret_n_out, struct diag *diag)
{
	struct serving_model model = serve_model(serve);
	_cleanup_(mask_set_freep) struct mask_set *set = NULL;
	_cleanup_(freep) void *data = NULL;
	struct mask_set_header header;
	char path[512];
	size_t n;
	int r;

	r = state_mask_path(serve->state, path, job->site, "round/candidate");
	if (r >= 0)
		r = read_file(path, SERVE_MAX_MASK_BYTES, &data, &n, diag);
	if (r < 0)
		return r;
	r = mask_set_decode(&set, &header, model.layout, model.base, model.width, data, n, diag);
	if (r < 0)
		return r;
	row->prep = prep_digest(&job->prep);
	if (!digest_equal(&header.prep, &row->prep))
		return diag_set(diag, EBADMSG, "the candidate is for another preprocessing");
	row->n_bytes = n;
	row->n_elements = header.n_elements;
	row->n_flips = header.n_flips;
	row->density = mask_set_density(set);
	row->lowest_density = mask_set_lowest_density(set);
	row->base = *model.base;
	row->mask = set->id;
	*ret_n_out = set->n_out;
	row->space = space_digest(
		&row->base, &row->mask, &row->prep, precision_name(model.precision), "cls");
	return 0;
}

static int verify_reference(struct serve *serve, const struct round_job *job,
	const struct version_row *row, uint32_t n_out, struct diag *diag)
{
	_cleanup_(reference_freep) struct reference *reference = NULL;
	_cleanup_(freep) void *data = NULL;
	char path[512];
	size_t n;
	int r;

	r = state_path(serve->state, path, job->site, "round/candidate.kref");
	if (r >= 0)
		r = read_file(path, SERVE_MAX_REFERENCE_BYTES, &data, &n, diag);
	if (r < 0)
		return r;
	r = reference_decode(&reference, data, n, diag);
	if (r < 0)
		return r;
	if (reference->dim != n_out || !digest_equal(&reference->space, &row->space))
		return diag_set(diag, EBADMSG, "candidate.kref is of another space than its mask");
	return 0;
}

/* Whole, and what its digest says: or nobody could learn this version again. */
static int read_recipe(const struct round_job *job, const Kamen__LearnDone *done,
	struct version_row *row, struct diag *diag)
{
	struct recipe recipe = { 0 };
	struct digest digest;
	int r;

	if (job->judge)
		return 0;
	if (!done->recipe || strlen(done->recipe) >= sizeof(row->recipe_text))
		return diag_set(diag, EBADMSG, "the learner does not say by which recipe");
	r = recipe_read(&recipe, done->recipe, diag);
	if (r < 0)
		return r;
	digest = recipe_digest(&recipe);
	if (!digest_equal(&digest, &row->recipe))
		return diag_set(diag, EBADMSG, "the recipe is not the one of its digest");
	memcpy(row->recipe_text, done->recipe, strlen(done->recipe) + 1);
	return reproduce_write_prep(&job->prep, row->prep_text);
}

/* Names go into state.db and tables: what has none that fits is left out. */
static void read_figures(const Kamen__LearnDone *done, struct version_row *row)
{
	static const char chars[] = "abcdefghijklmnopqrstuvwxyz0123456789_.-";

	for (size_t i = 0; i < done->n_figures && row->n_figures < VERSION_MAX_FIGURES; i++) {
		struct named_figure *figure = &row->figures[row->n_figures];
		const char *name = done->figures[i]->name;
		size_t n = strlen(name);

		if (n == 0 || n >= sizeof(figure->name) || strspn(name, chars) < n)
			continue;
		memcpy(figure->name, name, n + 1);
		figure->value = done->figures[i]->value;
		row->n_figures++;
	}
}

int learnt_read(struct version_row *ret_row, struct serve *serve, const struct round_job *job,
	const Kamen__LearnDone *done, struct diag *diag)
{
	uint32_t n_out = 0;
	int r;

	*ret_row = (struct version_row){
		.version = job->version,
		.loss_ratio = done->loss_ratio,
		.seconds = done->seconds,
		.seed = job->seed,
		.created_us = clock_wall_us(),
		.steps = done->steps,
		.n_images = done->n_images,
		.threads = done->threads,
		.kept_step = done->kept_step,
		.manifest = read_digest(done->has_manifest_digest, &done->manifest_digest),
		.recipe = read_digest(done->has_recipe_digest, &done->recipe_digest),
		.frozen = read_judgement(done->frozen),
		.candidate = read_judgement(done->candidate),
		.shots = read_shots(done->frozen, done->candidate),
	};
	(void)snprintf(ret_row->site, sizeof(ret_row->site), "%s", job->site);
	(void)snprintf(ret_row->isa, sizeof(ret_row->isa), "%s", done->isa ? done->isa : "");
	read_figures(done, ret_row);
	r = read_recipe(job, done, ret_row, diag);
	if (r >= 0)
		r = verify_mask(serve, job, ret_row, &n_out, diag);
	if (r < 0)
		return r;
	return verify_reference(serve, job, ret_row, n_out, diag);
}
