/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <string.h>

#include "learner/hard.h"
#include "learner/job.h"
#include "learner/khard.h"
#include "learner/near.h"
#include "learner/split.h"
#include "site/gate.h"

#define MANIFEST_MAX_BYTES (256u << 20)
#define SET_MAX_BYTES (256u << 20)
#define CACHE_BYTES ((size_t)1 << 30)
#define CHECKPOINT "checkpoint"
#define BEST "best"
#define EXPERTS "experts"
#define CHECKPOINT_STEPS 5u
#define CHECKPOINT_NS (30 * NS_PER_S)

struct job {
	char site[64];
	uint32_t version;
	struct vit *vit;
	enum precision precision; /* in which it will be served */
	struct prep prep;
	struct recipe recipe;
	struct images *images;
	float *base_rows; /* (n, width) of every image by the base, normalised; NULL: too many */
	struct images_part learn_part, held_part;
	struct images_labelled labelled; /* to learn from, where the objective wants labels */
	struct round *round;             /* NULL: a mask is only judged, or the round is done */
	struct early_stop *stop;
	struct cascade *cascade;   /* NULL: no experts are learnt, or not yet, or they are done */
	struct mask_set *set;      /* the finished one */
	struct mask_set *champion; /* NULL: the base */
	struct head head;          /* of the round's last step */
	float *head_values;        /* what it lies in; NULL: nothing was learnt */
	struct round_progress last;
	uint64_t seed; /* of the mask */
	char *round_path;
	int round_fd;
	uint64_t started_ns, saved_ns;
	double thin; /* list pairs of images of a greater cosine; 0: no list */
	bool is_foreign, is_again;
	bool is_learnt; /* the round, but for experts: what resumes it is there, or is not needed */
};

/* ---- what the message says */

static int read_prep(
	struct prep *ret_prep, const Kamen__Prep *message, uint32_t patch, struct diag *diag)
{
	struct prep prep = { .input_px = message->input_px, .crop = message->crop };

	if (strcmp(message->resize, "crop") == 0)
		prep.resize = PREP_CROP;
	else if (strcmp(message->resize, "squash") == 0)
		prep.resize = PREP_SQUASH;
	else
		return diag_set(diag, EINVAL, "prep: resize is '%.16s', not crop or squash",
			message->resize);
	if (message->n_mean != 3 || message->n_std != 3)
		return diag_set(diag, EINVAL, "prep: mean and std must have 3 values");
	for (unsigned i = 0; i < 3; i++) {
		prep.mean[i] = message->mean[i];
		prep.std[i] = message->std[i];
	}
	*ret_prep = prep;
	return prep_check(ret_prep, patch, diag);
}

static int open_folder(struct job *job, const char *path, struct diag *diag)
{
	job->round_path = strdup(path);
	if (!job->round_path)
		return -ENOMEM;
	job->round_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (job->round_fd < 0)
		return diag_set(diag, errno, "%s: %s", path, strerror(errno));
	return 0;
}

static int open_images(struct job *job, const Kamen__LearnJob *message, struct interrupt interrupt,
	struct diag *notice, struct diag *diag)
{
	_cleanup_(manifest_done) struct manifest manifest = { 0 };
	_cleanup_(freep) void *text = NULL;
	struct diag why = { "" };
	uint32_t n_all, n_lost;
	size_t n_chars;
	int r;

	r = blob_read(AT_FDCWD, message->manifest, MANIFEST_MAX_BYTES, &text, &n_chars);
	if (r < 0)
		return diag_set(diag, -r, "%s: %s", message->manifest, strerror(-r));
	r = manifest_read(&manifest, text, n_chars, diag);
	if (r < 0)
		return r;
	n_all = manifest.n;
	r = images_open(
		&job->images, &manifest, message->replay, CACHE_BYTES, interrupt, &n_lost, &why);
	if (r < 0)
		return diag_set(diag, -r, "images: %s", why.text[0] ? why.text : strerror(-r));
	if (n_lost > 0)
		(void)diag_set(
			notice, 0, "%u of %u images are left out: %s", n_lost, n_all, why.text);
	if (n_lost > 0 && message->recipe)
		return diag_set(diag, ENODATA, "%u of %u images cannot be read: %s", n_lost, n_all,
			why.text);
	/* A few lost images are the disk's; most of them lost is another mistake. */
	if (n_lost > n_all / 2)
		return diag_set(diag, ENODATA, "only %u of %u images can be read: %s",
			n_all - n_lost, n_all, why.text);
	return 0;
}

/* What the round learns by: as was asked, else as the site's own wishes have it. */
static int find_objective(
	enum recipe_objective *ret_objective, const Kamen__LearnJob *message, struct diag *diag)
{
	const char *text = message->recipe ? message->recipe : message->changes;
	struct recipe asked = { .objective = RECIPE_SWAV };
	int r = text ? recipe_read_objective(&asked.objective, text, diag) : 0;

	if (r == 0 && !message->recipe && message->objective && message->objective[0])
		r = recipe_set(&asked, "objective", message->objective, diag);
	if (r == 0)
		*ret_objective = asked.objective;
	return r;
}

/* Nothing of it is guessed: a recipe that has lost or gained a field gives other bits. */
static int read_recipe(struct job *job, const char *text, struct diag *diag)
{
	struct recipe_text again;
	int r;

	r = recipe_read(&job->recipe, text, diag);
	if (r < 0)
		return r;
	again = recipe_text(&job->recipe);
	if (strcmp(again.text, text) != 0)
		return diag_set(diag, ESTALE, "the recipe is of another version of this program");
	job->seed = job->recipe.seed;
	job->is_again = true;
	return 0;
}

static int set_recipe(struct job *job, const Kamen__LearnJob *message,
	enum recipe_objective objective, uint32_t n, struct diag *diag)
{
	int r;

	if (message->recipe)
		return read_recipe(job, message->recipe, diag);
	job->recipe = recipe_for(
		job->vit, &job->prep, n, objective, message->has_steps ? message->steps : 0);
	r = message->changes ? recipe_read(&job->recipe, message->changes, diag) : 0;
	if (r < 0)
		return r;
	/* Asked for with the round, it stays, whatever the site's own wishes say. */
	job->recipe.objective = objective;
	if (message->has_memory)
		recipe_fit(&job->recipe, job->vit, message->memory);
	if (message->has_seed)
		job->recipe.seed = message->seed;
	job->seed = job->recipe.seed;
	return 0;
}

/* ---- the two kinds of job */

/* Where labels count, images without one have nothing to say. */
static struct image_source learn_source(struct job *job)
{
	if (job->labelled.n > 0)
		return images_labelled_source(&job->labelled);
	return images_source(job->images, &job->learn_part, false, UINT32_MAX);
}

static int make_round(struct job *job, struct diag *diag)
{
	const struct early_stop_limits limits = gate_limits();
	const struct image_source learn = learn_source(job);
	const struct image_source held = images_judged_source(job->images, &job->held_part);
	int r;

	r = round_new(&job->round, job->vit, &job->recipe, &job->prep, &learn, diag);
	if (r < 0)
		return r;
	r = early_stop_new(&job->stop, job->vit, &job->recipe, &job->prep, &held, NULL, &limits);
	return r < 0 ? diag_set(diag, -r, "early stop: %s", strerror(-r)) : 0;
}

static void drop_round(struct job *job)
{
	round_free(TAKE_PTR(job->round));
	early_stop_free(TAKE_PTR(job->stop));
}

static int resume(struct job *job, struct diag *why)
{
	int r = round_resume(job->round, job->round_fd, CHECKPOINT, why);

	return r < 0 ? r : early_stop_resume(job->stop, job->round_fd, BEST, why);
}

static int start_round(struct job *job, struct diag *notice, struct diag *diag)
{
	struct diag why = { "" };
	size_t n;
	int r;

	r = make_round(job, diag);
	if (r < 0)
		return r;
	if (faccessat(job->round_fd, CHECKPOINT, R_OK, 0) < 0)
		return 0;
	r = resume(job, &why);
	if (r >= 0)
		return 0;
	n = strlen(notice->text);
	(void)snprintf(notice->text + n, sizeof(notice->text) - n,
		"%sthe round begins anew, its checkpoint does not fit: %s", n ? "; " : "",
		why.text[0] ? why.text : strerror(-r));
	/* A resume that failed half way may have written some of the state. */
	drop_round(job);
	return make_round(job, diag);
}

static int read_set(struct mask_set **ret_set, struct mask_set_header *ret_header,
	const struct job *job, const char *path, struct diag *diag)
{
	_cleanup_(freep) void *data = NULL;
	size_t n_bytes;
	int r;

	r = blob_read(AT_FDCWD, path, SET_MAX_BYTES, &data, &n_bytes);
	if (r < 0)
		return diag_set(diag, -r, "%s: %s", path, strerror(-r));
	return mask_set_decode(ret_set, ret_header, vit_layout(job->vit), vit_digest(job->vit),
		vit_shape(job->vit)->width, data, n_bytes, diag);
}

static int read_foreign(struct job *job, const char *path, struct diag *diag)
{
	struct mask_set_header header;
	int r = read_set(&job->set, &header, job, path, diag);

	if (r < 0)
		return r;
	job->seed = header.seed;
	job->is_foreign = true;
	job->last = (struct round_progress){
		.step = header.steps,
		.steps = header.steps,
		.density = mask_set_density(job->set),
		.lowest_density = mask_set_lowest_density(job->set),
		.n_flips = header.n_flips,
	};
	return 0;
}

/* It is only compared with: without it the comparison is with the base. */
static void read_champion(struct job *job, const char *path)
{
	struct mask_set_header header;

	(void)read_set(&job->champion, &header, job, path, NULL);
}

static int find_precision(enum precision *ret_precision, const Kamen__LearnJob *message,
	struct vit *vit, struct diag *diag)
{
	const char *name = message->precision ? message->precision : precision_name(PRECISION_F32);

	if (precision_parse(ret_precision, name) < 0 || !vit_has(vit, *ret_precision))
		return diag_set(diag, EOPNOTSUPP, "precision %s: not one of this CPU", name);
	/* The others were tried at the start: this one is asked for by few. */
	return *ret_precision == PRECISION_INT8 ? vit_selftest(vit, *ret_precision, diag) : 0;
}

static int set_up(struct job *job, const Kamen__LearnJob *message, struct interrupt interrupt,
	struct diag *notice, struct diag *diag)
{
	enum recipe_objective objective = RECIPE_SWAV;
	uint32_t n;
	int r;

	(void)snprintf(job->site, sizeof(job->site), "%s", message->site);
	job->version = message->version;
	r = find_precision(&job->precision, message, job->vit, diag);
	if (r < 0)
		return r;
	job->thin = message->has_thin ? message->thin : 0;
	r = read_prep(&job->prep, message->prep, vit_shape(job->vit)->patch, diag);
	if (r == 0)
		r = open_folder(job, message->round, diag);
	if (r == 0)
		r = open_images(job, message, interrupt, notice, diag);
	if (r < 0)
		return r;
	r = split_by_likeness(&job->base_rows, job->images, job->vit, &job->prep, notice);
	if (r < 0)
		return diag_set(diag, -r, "near-duplicates: %s %s", strerror(-r),
			images_error(job->images));
	r = find_objective(&objective, message, diag);
	if (r == 0 && recipe_wants_labels(objective) && !message->judge_mask)
		r = images_labelled_learn(&job->labelled, job->images, diag);
	if (r < 0)
		return r;
	n = learn_source(job).n;
	if (n == 0)
		return diag_set(diag, ENODATA, "no image is left to learn from");
	r = set_recipe(job, message, objective, n, diag);
	if (r < 0)
		return r;
	if (message->champion)
		read_champion(job, message->champion);
	return message->judge_mask ? read_foreign(job, message->judge_mask, diag)
				   : start_round(job, notice, diag);
}

int job_new(struct job **ret_job, struct vit *vit, const Kamen__LearnJob *message,
	struct interrupt interrupt, struct diag *notice, struct diag *diag)
{
	_cleanup_(job_freep) struct job *job = calloc(1, sizeof(*job));
	int r;

	notice->text[0] = 0;
	if (!job)
		return -ENOMEM;
	job->vit = vit;
	job->round_fd = -1;
	job->started_ns = job->saved_ns = clock_now_ns();
	r = set_up(job, message, interrupt, notice, diag);
	if (r < 0)
		return r;
	*ret_job = TAKE_PTR(job);
	return 0;
}

void job_free(struct job *job)
{
	if (!job)
		return;
	drop_round(job);
	cascade_free(job->cascade);
	mask_set_free(job->set);
	mask_set_free(job->champion);
	free(job->head_values);
	free(job->base_rows);
	images_labelled_done(&job->labelled);
	images_free(job->images);
	free(job->round_path);
	closep(&job->round_fd);
	free(job);
}

const char *job_site(const struct job *job)
{
	return job->site;
}

uint32_t job_version(const struct job *job)
{
	return job->version;
}

double job_seconds(const struct job *job)
{
	return (double)(clock_now_ns() - job->started_ns) / (double)NS_PER_S;
}

/* ---- learning */

int job_save(struct job *job)
{
	int r;

	if (job->cascade) {
		job->saved_ns = clock_now_ns();
		return cascade_save(job->cascade, job->round_fd, EXPERTS);
	}
	if (!job->round || job->is_learnt || job->last.step == 0)
		return 0;
	job->saved_ns = clock_now_ns();
	r = early_stop_save(job->stop, job->round_fd, BEST);
	return r < 0 ? r : round_save(job->round, job->round_fd, CHECKPOINT);
}

/* Not after the last step: a resumed round has a step to tell its figures from. */
static int save_in_time(struct job *job)
{
	if (job->last.step % CHECKPOINT_STEPS != 0 &&
		clock_now_ns() - job->saved_ns < CHECKPOINT_NS)
		return 0;
	return job_save(job);
}

static int take_head(struct job *job)
{
	const struct head *head = round_head(job->round);
	size_t n;

	if (!head)
		return 0;
	n = head_size(head->width, head->dim, head->n_prototypes);
	job->head_values = malloc(n * sizeof(*job->head_values));
	if (!job->head_values)
		return -ENOMEM;
	memcpy(job->head_values, head->weight, n * sizeof(*job->head_values));
	job->head = head_map(job->head_values, head->width, head->dim, head->n_prototypes);
	return 0;
}

static int make_set(struct job *job, const struct mask *from)
{
	_cleanup_(mask_freep) struct mask *mask = NULL;
	int r = mask_new(&mask, vit_layout(job->vit));

	if (r < 0)
		return r;
	mask_copy(mask, from);
	r = mask_set_of(&job->set, mask, vit_layout(job->vit), vit_shape(job->vit)->width);
	if (r == 0)
		(void)TAKE_PTR(mask);
	return r;
}

/*
 * From here on the round's checkpoint stays as it is, a few steps before its end: who resumes the job
 * does those again, to the same mask, and goes on with the experts that are done.
 */
static int begin_experts(struct job *job, const struct mask *dispatcher, struct diag *diag)
{
	const struct image_source learn =
		images_source(job->images, &job->learn_part, false, UINT32_MAX);
	const struct image_source held = images_judged_source(job->images, &job->held_part);
	struct cascade_options options = cascade_options_default();
	int r;

	options.n_experts = job->recipe.experts;
	if (options.n_route > vit_shape(job->vit)->width)
		options.n_route = vit_shape(job->vit)->width;
	options.held = &held;
	options.limits = gate_limits();
	r = cascade_new(&job->cascade, job->vit, &options, &job->recipe, &job->prep, &learn,
		dispatcher, round_scores(job->round), diag);
	if (r < 0)
		return r;
	r = cascade_resume(job->cascade, job->round_fd, EXPERTS, NULL);
	return r == -ENOENT || r == -ESTALE || r == -EBADMSG ? 0 : r;
}

/*
 * The best mask, not the last; what is told of the round is what it was then. Where none was worth
 * keeping it is the last one after all: the gate says what is wrong with it.
 */
static int take_mask(struct job *job, struct diag *diag)
{
	const struct mask *best = early_stop_mask(job->stop);
	const struct mask *mask = best ? best : round_mask(job->round);
	const struct digest id = mask_digest(mask);
	int r;

	job->is_learnt = true;
	r = khard_keep(job->round, &id, job->round_fd);
	if (r < 0)
		return r;
	r = job->recipe.experts > 0 ? begin_experts(job, mask, diag) : make_set(job, mask);
	if (r < 0)
		return r;
	if (best)
		job->last = early_stop_best(job->stop).progress;
	r = take_head(job);
	if (r < 0)
		return r;
	/* Its scores and activations are many times the mask: not needed while judging. */
	drop_round(job);
	return 0;
}

/* What is told: steps of the dispatcher and of every expert. */
static struct round_progress whole_progress(const struct job *job,
	const struct round_progress *progress, uint32_t n_before, uint32_t n_done)
{
	struct round_progress whole = *progress;

	whole.step = n_before * job->recipe.steps + n_done;
	whole.steps = (1 + job->recipe.experts) * job->recipe.steps;
	return whole;
}

static int take_cascade(struct job *job)
{
	int r = cascade_take(job->cascade, job->recipe.cascade, &job->set);

	if (r < 0)
		return r;
	cascade_free(TAKE_PTR(job->cascade));
	job->last.density = mask_set_density(job->set);
	job->last.lowest_density = mask_set_lowest_density(job->set);
	job->last.n_flips = mask_set_n_flips(job->set);
	return 0;
}

/* At the end of every expert, too. */
static int save_experts_in_time(struct job *job, uint32_t step)
{
	if (cascade_is_learning(job->cascade) && step % CHECKPOINT_STEPS != 0 &&
		clock_now_ns() - job->saved_ns < CHECKPOINT_NS)
		return 0;
	return job_save(job);
}

static int expert_step(struct job *job, struct round_progress *ret_progress, struct diag *diag)
{
	struct cascade_progress progress;
	uint32_t n_done;
	int r;

	images_set_interruptible(job->images, !cascade_is_learning(job->cascade));
	r = cascade_step(job->cascade, &progress, diag);
	images_set_interruptible(job->images, true);
	if (r < 0)
		return diag && diag->text[0] ? r
					     : diag_set(diag, -r, "experts: %s %s", strerror(-r),
						       images_error(job->images));
	/* A component too small to learn from is one step; after the last expert all is fused. */
	n_done = progress.round.steps > 0 || r == 0 ? progress.round.step : job->recipe.steps;
	*ret_progress = whole_progress(job, progress.round.steps > 0 ? &progress.round : &job->last,
		1 + progress.expert, n_done);
	r = r == 0 ? take_cascade(job) : save_experts_in_time(job, progress.round.step);
	return r < 0 ? diag_set(diag, -r, "experts: %s", strerror(-r)) : 1;
}

static int learn_step(struct job *job, struct round_progress *ret_progress, struct diag *diag)
{
	int r;

	/* The first step embeds everything and may be left; a later one is too dear to lose. */
	images_set_interruptible(job->images, job->last.step == 0);
	r = round_step(job->round, ret_progress);
	images_set_interruptible(job->images, true);
	if (r < 0)
		return diag_set(diag, -r, "step %u: %s %s", job->last.step + 1, strerror(-r),
			images_error(job->images));
	if (!isfinite(ret_progress->loss_ratio))
		return diag_set(
			diag, EDOM, "step %u: the loss is not a number", ret_progress->step);
	return r;
}

/* What early_stop_step() says. */
static int look(struct job *job, const struct round_progress *progress, struct diag *diag)
{
	int stopped;

	images_set_interruptible(job->images, false);
	stopped = early_stop_step(job->stop, progress, round_mask(job->round), diag);
	images_set_interruptible(job->images, true);
	if (stopped < 0)
		return diag_set(diag, -stopped, "step %u: judging: %s %s", progress->step,
			strerror(-stopped), images_error(job->images));
	return stopped;
}

int job_step(struct job *job, struct round_progress *ret_progress, struct diag *diag)
{
	struct round_progress progress;
	struct diag why = { "" };
	int r, stopped;

	if (job->cascade)
		return expert_step(job, ret_progress, diag);
	if (!job->round)
		return 0;
	r = learn_step(job, &progress, diag);
	if (r < 0)
		return r;
	job->last = progress;
	stopped = look(job, &progress, diag);
	if (stopped < 0)
		return stopped;
	r = r == 0 || stopped ? take_mask(job, &why) : save_in_time(job);
	if (r < 0)
		return diag_set(diag, -r, "step %u: %s", progress.step,
			why.text[0] ? why.text : strerror(-r));
	*ret_progress = whole_progress(job, &progress, 0, progress.step);
	return 1;
}

int job_finish(struct job *job, struct job_done *ret_done, struct diag *diag)
{
	const struct results_job what = {
		.vit = job->vit,
		.precision = job->precision,
		.recipe = &job->recipe,
		.prep = &job->prep,
		.images = job->images,
		.set = job->set,
		.champion = job->champion,
		.head = job->head_values ? &job->head : NULL,
		.round = job->round_path,
		.steps = job->last.steps,
		.seed = job->seed,
	};
	const struct near_options near = { job->thin, job->version * NEAR_MAX, job->base_rows };
	const struct hard_options hard = {
		.vit = job->vit,
		.precision = job->precision,
		.set = job->set,
		.prep = &job->prep,
		.images = job->images,
	};
	struct results results = { .frozen.n = 0 };
	int r = 0;

	r = khard_settle(job->round_fd, &job->set->id);
	if (r < 0)
		return diag_set(diag, -r, "hardness: %s", strerror(-r));
	if (!job->is_again)
		r = results_write(&results, &what, diag);
	if (r < 0)
		return r;
	/* By-products: a round that is done is not lost over them, diag tells. */
	if (!job->is_again)
		r = hard_write(&hard, job->round_fd, diag);
	if (r == -ECANCELED)
		return r;
	if (job->thin > 0)
		r = near_write(job->vit, &job->prep, job->images, &near, job->round_fd, diag);
	if (r == -ECANCELED)
		return r;
	*ret_done = (struct job_done){
		.results = results,
		.manifest = manifest_digest(images_manifest(job->images)),
		.mask = job->set->id,
		.last = job->last,
		.seed = job->seed,
		.n_images = images_manifest(job->images)->n,
		.seconds = job_seconds(job),
	};
	if (job->is_foreign)
		return 0;
	ret_done->recipe = recipe_digest(&job->recipe);
	ret_done->recipe_text = recipe_text(&job->recipe);
	return 0;
}
