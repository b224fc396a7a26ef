/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/worker.h"

#include <errno.h>
#include <math.h>
#include <omp.h>
#include <pthread.h>

#include "ops/slice.h"
#include "serve/heartbeat.h"
#include "serve/heat.h"
#include "serve/hold.h"
#include "serve/limits.h"
#include "serve/plans.h"
#include "serve/shadow.h"
#include "serve/slots.h"
#include "serve/verdict.h"

struct worker {
	struct worker_options options;
	cpu_set_t cpus; /* what options.cpus points to, unless that is NULL */
	pthread_t thread;
	pthread_mutex_t lock; /* of scheduler and stop, while the thread waits for them */
	pthread_cond_t told;
	struct scheduler *scheduler;
	bool stop, joinable, finished;
	_Atomic int state;
	struct diag diag;
	_Atomic uint64_t n_begun, n_ended; /* batches: the heartbeat */
	struct heartbeat heartbeat;

	/* The thread's own. */
	struct vit *vit;
	enum precision precision;
	bool has[N_PRECISIONS];
	struct slots *slots;
	struct plans *plans;
	struct resize_scratch *scratch;
	struct mask_set_scratch *set_scratch;
	float *embeddings; /* (max_batch, width) */
	struct heat *heat;
	const float *
		tokens; /* (n, 1 + grid^2, width) of the last batch; NULL: nobody asked for a map */
	float *pixels;  /* (n_pixels) of a cascade's batch: several forwards of it */
	size_t n_pixels;
	const float *input;            /* of the last batch, until the next one */
	struct shadow_sample *samples; /* to be computed while nothing waits */
	struct embedding *embedding;   /* the same, and now and then although something does */
	uint64_t embedded_ns;          /* when its last image was */
};

/* ---- one batch */

static size_t input_size(const struct serving *serving)
{
	return (size_t)3 * serving->prep.input_px * serving->prep.input_px;
}

/* input (n, 3, px, px) */
static int prepare(struct worker *worker, struct request *const *batch, uint32_t n,
	const struct serving *serving, float *input)
{
	int r = 0;

	for (uint32_t i = 0; i < n && r >= 0; i++)
		r = prep_apply(&serving->prep, &batch[i]->view, input + i * input_size(serving),
			worker->scratch);
	worker->input = input;
	return r;
}

static bool wants_map(struct request *const *batch, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (batch[i]->wire.flags & SHM_WANT_HARDNESS)
			return true;
	return false;
}

/* A plan and a slot for n images of one mask. Pooled where classes are to be told apart; all tokens
 * for a hardness map. */
static int take_plan(struct worker *worker, uint32_t n, const struct serving *serving,
	bool is_pooled, bool with_tokens, struct vit_plan **ret_plan, struct slot **ret_slot)
{
	const struct vit_plan_options options = {
		.batch = n,
		.px = serving->prep.input_px,
		.precision = serving->precision,
		.tokens_out = with_tokens,
		.pooled = is_pooled,
	};
	int r = slots_take(worker->slots, serving->set, 0, serving->precision, ret_slot);

	return r < 0 ? r : plans_take(worker->plans, &options, ret_plan);
}

static bool wants_feature(struct request *const *batch, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (batch[i]->wire.flags & SHM_WANT_FEATURE)
			return true;
	return false;
}

/* ret_features: (n, embedding_dim()) until the next forward; NULL: nobody needs them. */
static int forward(struct worker *worker, struct request *const *batch, uint32_t n,
	const struct serving *serving, const float **ret_features)
{
	struct vit_plan *plan;
	struct slot *slot;
	int r;

	r = take_plan(worker, n, serving, serving->classes || wants_feature(batch, n),
		wants_map(batch, n) && serving->hardness_path[0], &plan, &slot);
	if (r == 0)
		r = prepare(worker, batch, n, serving, vit_plan_input(plan));
	if (r == 0)
		r = vit_forward(plan, slot, worker->embeddings);
	worker->tokens = r == 0 ? vit_plan_tokens(plan) : NULL;
	if (r == 0)
		*ret_features = vit_plan_features(plan);
	return r;
}

/** Prepared images as the masks of a cascade are to see them. */
struct sight {
	struct worker *worker;
	const struct serving *serving;
	const float *pixels;         /* (n, 3, px, px) */
	struct scheduler *gives_way; /* to what waits there; NULL: looks to the end */
};

/* Batches have sizes of powers of two, so that plans are few: so have the parts of one. */
static uint32_t part_of(uint32_t n)
{
	uint32_t power = 1;

	while (power * 2 <= n)
		power *= 2;
	return power;
}

static int look(void *owner, uint32_t m, const uint32_t *images, uint32_t n, float *rows)
{
	const struct sight *sight = owner;
	struct worker *worker = sight->worker;
	struct vit_plan_options options = {
		.px = sight->serving->prep.input_px,
		.precision = sight->serving->precision,
	};
	size_t size = input_size(sight->serving), width = vit_shape(worker->vit)->width;
	struct slot *slot;
	uint32_t n_now;
	int r;

	if (sight->gives_way && !scheduler_is_idle(sight->gives_way))
		return -ECANCELED;
	r = slots_take(worker->slots, sight->serving->set, m, sight->serving->precision, &slot);
	for (uint32_t i = 0; i < n && r >= 0; i += n_now) {
		struct vit_plan *plan;

		n_now = part_of(n - i);
		options.batch = n_now;
		r = plans_take(worker->plans, &options, &plan);
		if (r < 0)
			break;
		for (uint32_t k = 0; k < n_now; k++)
			memcpy(vit_plan_input(plan) + k * size,
				sight->pixels + images[i + k] * size, size * sizeof(float));
		r = vit_forward(plan, slot, rows + i * width);
	}
	return r;
}

/* Not a plan's input: the plans of the parts may push that out. Grows with the first of a size. */
static int pixels_for(struct worker *worker, size_t n_pixels)
{
	float *pixels;

	if (n_pixels <= worker->n_pixels)
		return 0;
	pixels = malloc(n_pixels * sizeof(*pixels));
	if (!pixels)
		return -ENOMEM;
	free(worker->pixels);
	worker->pixels = pixels;
	worker->n_pixels = n_pixels;
	return 0;
}

static int forward_cascade(struct worker *worker, struct request *const *batch, uint32_t n,
	const struct serving *serving)
{
	struct sight sight = { .worker = worker, .serving = serving };
	const struct mask_set_eye eye = { look, &sight };
	int r;

	worker->tokens = NULL;
	r = pixels_for(worker, n * input_size(serving));
	if (r == 0)
		r = prepare(worker, batch, n, serving, worker->pixels);
	if (r < 0)
		return r;
	sight.pixels = worker->pixels;
	return mask_set_embed(worker->embeddings, serving->set, worker->set_scratch, &eye, n);
}

/* Image i of the batch; behind the embedding. */
static void write_map(
	struct worker *worker, struct request *request, uint32_t i, const struct serving *serving)
{
	const struct vit_shape *shape = vit_shape(worker->vit);
	const uint32_t grid = serving->prep.input_px / shape->patch;
	const size_t n_tokens = (1 + (size_t)grid * grid) * shape->width;
	struct answer *answer = &request->answer;
	const char *reason;
	uint32_t side;
	int r;

	r = heat_of(worker->heat, serving, worker->tokens ? worker->tokens + i * n_tokens : NULL,
		grid, request->values + answer->n_embedding, &side, &reason);
	if (r < 0) {
		*answer = (struct answer){ .code = r,
			.reason = reason,
			.version = answer->version,
			.space = answer->space,
			.novelty = NAN,
			.distance = NAN,
			.score = NAN,
			.unknown = NAN };
		return;
	}
	answer->hardness_side = side;
	answer->n_hardness = side * side;
}

static void run_batch(struct worker *worker, struct request *const *batch, uint32_t n,
	const struct serving *serving, uint64_t *ret_compute_ns)
{
	struct inference_stats *stats = worker->options.stats;
	uint32_t width = serving->set->n_out;
	uint32_t dim = embedding_dim(serving);
	uint64_t begin = clock_now_ns(), compute_ns;
	const float *features = worker->embeddings;
	int r;

	r = serving->set->n_experts > 0 ? forward_cascade(worker, batch, n, serving)
					: forward(worker, batch, n, serving, &features);
	for (uint32_t i = 0; i < n; i++) {
		batch[i]->answer.code = r;
		batch[i]->answer.reason = r < 0 ? "the forward pass failed" : NULL;
		batch[i]->answer.version = serving->version;
		batch[i]->answer.is_broken = r < 0;
		if (r >= 0)
			verdict_write(batch[i], worker->embeddings + (size_t)i * width,
				features ? features + (size_t)i * dim : NULL, serving);
		if (r >= 0 && batch[i]->wire.flags & SHM_WANT_HARDNESS)
			write_map(worker, batch[i], i, serving);
	}
	compute_ns = clock_now_ns() - begin;
	for (uint32_t i = 0; i < n; i++) {
		int pending = REQUEST_PENDING;

		batch[i]->answer.queue_ns = begin - batch[i]->received_ns;
		batch[i]->answer.compute_ns = compute_ns;
		histogram_add(&stats->queue, batch[i]->answer.queue_ns);
		if (!atomic_compare_exchange_strong(&batch[i]->state, &pending, REQUEST_DONE))
			atomic_fetch_add(&stats->n_late, 1);
	}
	histogram_add(&stats->compute, compute_ns);
	atomic_fetch_add(&stats->n_batches, 1);
	atomic_fetch_add(&stats->n_images, n);
	if (r < 0)
		atomic_fetch_add(&stats->n_failed, 1);
	*ret_compute_ns = r < 0 ? UINT64_MAX : compute_ns;
}

/* ---- shadows */

/* Before the batch is handed back: from then on its requests are the loop's. */
static struct shadow_sample *detach_samples(struct request *const *batch, uint32_t n)
{
	struct shadow_sample *samples = NULL;

	for (uint32_t i = 0; i < n; i++) {
		struct shadow_sample *sample = TAKE_PTR(batch[i]->sample);

		if (!sample)
			continue;
		sample->at = i;
		sample->theirs = batch[i]->answer;
		sample->next = samples;
		samples = sample;
	}
	return samples;
}

/* Afterwards: nobody waits for the copies any more. */
static void keep_samples(struct worker *worker, struct scheduler *scheduler,
	struct shadow_sample *samples, const struct serving *serving)
{
	size_t width = serving->set->n_out;
	struct shadow_sample *next;

	for (struct shadow_sample *s = samples; s; s = next) {
		next = s->next;
		/* The champion may have changed between the draw and the batch. */
		if (s->theirs.code < 0 || s->serving->prep.input_px != serving->prep.input_px) {
			scheduler_give_sample(scheduler, s);
			continue;
		}
		s->champion = serving->version;
		/* A fusion turns and weighs its directions anew: no angle to anything else. */
		s->is_comparable = serving->set->n_experts == 0 && s->serving->set->n_experts == 0;
		memcpy(s->input, worker->input + s->at * s->n_input, s->n_input * sizeof(float));
		memcpy(s->embedding, worker->embeddings + s->at * width, width * sizeof(float));
		s->next = worker->samples;
		worker->samples = s;
	}
}

/* -ECANCELED: somebody waits. One forward is what a line may have to wait for, not a cascade. */
static int run_sample(
	struct worker *worker, struct scheduler *scheduler, struct shadow_sample *sample)
{
	struct sight sight = { worker, sample->serving, sample->input, scheduler };
	const struct mask_set_eye eye = { look, &sight };
	uint32_t width = sample->serving->set->n_out;
	uint64_t begin = clock_now_ns();
	int r;

	r = mask_set_embed(worker->embeddings, sample->serving->set, worker->set_scratch, &eye, 1);
	if (r < 0)
		return r;
	verdict_judge(&sample->ours, worker->embeddings, sample->serving);
	sample->ours.compute_ns = clock_now_ns() - begin;
	sample->cosine = NAN;
	if (!sample->is_comparable)
		return 0;
	cosine_normalise(worker->embeddings, worker->embeddings, 1, width);
	cosine_normalise(sample->embedding, sample->embedding, 1, width);
	sample->cosine = (double)cosine_dot(worker->embeddings, sample->embedding, width);
	return 0;
}

static void run_samples(struct worker *worker, struct scheduler *scheduler)
{
	while (worker->samples && scheduler_is_idle(scheduler)) {
		struct shadow_sample *sample = worker->samples;

		worker->samples = sample->next;
		atomic_fetch_add(&worker->n_begun, 1);
		sample->is_done = run_sample(worker, scheduler, sample) == 0;
		atomic_fetch_add(&worker->n_ended, 1);
		scheduler_give_sample(scheduler, sample);
	}
}

static void give_up_samples(struct worker *worker, struct scheduler *scheduler)
{
	while (worker->samples) {
		struct shadow_sample *sample = worker->samples;

		worker->samples = sample->next;
		scheduler_give_sample(scheduler, sample);
	}
}

/* ---- stored images, for a site's classes */

static int embed_by_cascade(struct worker *worker, const struct serving *serving,
	const struct image_view *view, float *values)
{
	struct sight sight = { .worker = worker, .serving = serving };
	const struct mask_set_eye eye = { look, &sight };
	int r = pixels_for(worker, input_size(serving));

	if (r == 0)
		r = prep_apply(&serving->prep, view, worker->pixels, worker->scratch);
	sight.pixels = worker->pixels;
	if (r == 0)
		r = mask_set_embed(values, serving->set, worker->set_scratch, &eye, 1);
	return r;
}

static int embed_by_mask(struct worker *worker, const struct serving *serving,
	const struct image_view *view, float *values)
{
	struct vit_plan *plan;
	struct slot *slot;
	int r = take_plan(worker, 1, serving, true, false, &plan, &slot);

	if (r == 0)
		r = prep_apply(&serving->prep, view, vit_plan_input(plan), worker->scratch);
	if (r == 0)
		r = vit_forward(plan, slot, worker->embeddings);
	if (r < 0)
		return r;
	memcpy(values, vit_plan_features(plan), embedding_dim(serving) * sizeof(*values));
	return 0;
}

static int embed(
	struct worker *worker, struct embedding *job, const struct feature_row *row, float *values)
{
	_cleanup_(image_freep) struct image *image = NULL;
	struct image_view view;
	int r;

	r = embedding_read(job, row, &image, job->n_failed == 0 ? &job->diag : NULL);
	if (r < 0)
		return r;
	view = image_view(image);
	return job->serving->set->n_experts > 0
		       ? embed_by_cascade(worker, job->serving, &view, values)
		       : embed_by_mask(worker, job->serving, &view, values);
}

/* False: that was all of it. */
static bool embed_next(struct worker *worker)
{
	struct embedding *job = worker->embedding;
	float *values = NULL;
	struct feature_row *row = embedding_next(job, &values);
	int r;

	if (!row)
		return false;
	atomic_fetch_add(&worker->n_begun, 1);
	r = embed(worker, job, row, values);
	atomic_fetch_add(&worker->n_ended, 1);
	if (r < 0 && job->n_failed == 0 && !job->diag.text[0])
		(void)diag_set(&job->diag, -r, "stored image %s: %s", row->blob, strerror(-r));
	row->is_known = row->is_new = r >= 0;
	job->n_done += r >= 0;
	job->n_failed += r < 0;
	worker->embedded_ns = clock_now_ns();
	return true;
}

/* One image, unless there is nothing else to do. */
static void run_embedding(struct worker *worker, struct scheduler *scheduler)
{
	if (!worker->embedding)
		worker->embedding = scheduler_take_embedding(scheduler);
	while (worker->embedding) {
		bool is_idle = scheduler_is_idle(scheduler);

		if (!is_idle && clock_now_ns() - worker->embedded_ns < EMBEDDING_PATIENCE_NS)
			return;
		if (embed_next(worker)) {
			if (!is_idle)
				return;
			continue;
		}
		worker->embedding->is_whole = true;
		scheduler_give_embedding(scheduler, TAKE_PTR(worker->embedding));
	}
}

/* ---- the thread */

/* So that the first request finds a packed model. */
static int warm_up(struct worker *worker)
{
	const struct vit_plan_options options = {
		.batch = 1,
		.px = vit_native_prep(worker->vit).input_px,
		.precision = worker->precision,
	};
	_cleanup_(mask_set_freep) struct mask_set *base = NULL;
	struct vit_plan *plan;
	struct slot *slot;
	int r;

	r = mask_set_of(&base, NULL, vit_layout(worker->vit), vit_shape(worker->vit)->width);
	if (r < 0)
		return r;
	r = slots_take(worker->slots, base, 0, worker->precision, &slot);
	if (r < 0)
		return r;
	return plans_take(worker->plans, &options, &plan);
}

/* The other one, too, if the CPU has it: versions are served in that one that were judged in it. */
static int choose_precision(struct worker *worker, struct diag *diag)
{
	const char *name = worker->options.inference->precision;
	int r = 0;

	if (strcmp(name, "auto") == 0)
		worker->precision =
			vit_has(worker->vit, PRECISION_BF16) ? PRECISION_BF16 : PRECISION_F32;
	else
		r = precision_parse(&worker->precision, name);
	if (r < 0 || !vit_has(worker->vit, worker->precision))
		return diag_set(diag, EOPNOTSUPP, "precision %s: this CPU (%s) does not have it",
			name, vit_isa(worker->vit));
	for (enum precision p = 0; p < N_PRECISIONS; p++)
		worker->has[p] = vit_has(worker->vit, p) && vit_selftest(worker->vit, p, NULL) == 0;
	/* Once more, for what to say. */
	return worker->has[worker->precision] ? 0
					      : vit_selftest(worker->vit, worker->precision, diag);
}

static int make_room(struct worker *worker)
{
	const struct worker_options *o = &worker->options;
	const struct slots_options slots = {
		.vit = worker->vit,
		.n = o->n_slots,
		.memory = o->slot_memory,
		.n_switches = &o->stats->n_switches,
		.n_bytes = &o->stats->slot_bytes,
	};
	int r = slots_new(&worker->slots, &slots);

	return r < 0 ? r
		     : plans_new(&worker->plans, worker->vit, o->inference->max_batch,
			       &o->stats->n_plans);
}

static int build(struct worker *worker)
{
	const struct inference_options *o = worker->options.inference;
	struct diag *diag = &worker->diag;
	uint32_t width;
	int r;

	r = vit_new(&worker->vit, o->base, o->family[0] ? o->family : NULL, diag);
	if (r < 0)
		return r;
	width = vit_shape(worker->vit)->width;
	if (width > SHM_MAX_EMBEDDING)
		return diag_set(diag, EOPNOTSUPP,
			"embeddings of %u numbers, at most %u fit a result", width,
			SHM_MAX_EMBEDDING);
	r = choose_precision(worker, diag);
	if (r < 0)
		return r;
	r = resize_scratch_new(&worker->scratch);
	if (r == 0)
		r = heat_new(&worker->heat, worker->vit);
	if (r == 0)
		r = mask_set_scratch_new(
			&worker->set_scratch, o->max_batch, CASCADE_MAX_EXPERTS, width);
	if (r < 0)
		return r;
	r = make_room(worker);
	if (r < 0)
		return r;
	worker->embeddings = calloc((size_t)o->max_batch * width, sizeof(float));
	if (!worker->embeddings)
		return -ENOMEM;
	r = warm_up(worker);
	if (r < 0)
		return diag_set(diag, -r, "cannot pack the model: %s", strerror(-r));
	return 0;
}

static void destroy(struct worker *worker)
{
	plans_free(worker->plans);
	slots_free(worker->slots);
	heat_free(worker->heat);
	free(worker->embeddings);
	free(worker->pixels);
	mask_set_scratch_free(worker->set_scratch);
	resize_scratch_free(worker->scratch);
	vit_free(worker->vit);
}

static struct scheduler *wait_for_work(struct worker *worker)
{
	struct scheduler *scheduler;

	(void)pthread_mutex_lock(&worker->lock);
	while (!worker->scheduler && !worker->stop)
		(void)pthread_cond_wait(&worker->told, &worker->lock);
	scheduler = worker->stop ? NULL : worker->scheduler;
	(void)pthread_mutex_unlock(&worker->lock);
	return scheduler;
}

/* The model stays until nobody reads its layout any more. */
static void wait_for_stop(struct worker *worker)
{
	(void)pthread_mutex_lock(&worker->lock);
	worker->finished = true;
	(void)pthread_cond_broadcast(&worker->told);
	while (!worker->stop)
		(void)pthread_cond_wait(&worker->told, &worker->lock);
	(void)pthread_mutex_unlock(&worker->lock);
}

static void serve_batches(struct worker *worker, struct scheduler *scheduler)
{
	struct request *batch[SERVE_MAX_BATCH];
	struct shadow_sample *samples;
	struct serving *serving;
	uint64_t compute_ns;
	int taken;

	for (;;) {
		uint32_t n;

		run_samples(worker, scheduler);
		run_embedding(worker, scheduler);
		/* Another worker may take what interrupted these: then they go on. */
		taken = scheduler_take(
			scheduler, !worker->samples && !worker->embedding, batch, &serving);
		if (taken == 0)
			break;
		if (taken < 0)
			continue;
		n = (uint32_t)taken;
		atomic_fetch_add(&worker->n_begun, 1);
		hold_begin(worker->options.inference->hold);
		run_batch(worker, batch, n, serving, &compute_ns);
		atomic_fetch_add(&worker->n_ended, 1);
		/* What a map takes is not what others of this size have to wait for. */
		if (compute_ns < UINT64_MAX && !worker->tokens)
			scheduler_learn(scheduler, serving, n, compute_ns);
		samples = detach_samples(batch, n);
		scheduler_give(scheduler, batch, n);
		/* Who waits for an answer need not wait for threads to be woken. */
		hold_end(worker->options.inference->hold);
		keep_samples(worker, scheduler, samples, serving);
		serving_unref(serving);
	}
	give_up_samples(worker, scheduler);
	if (worker->embedding)
		scheduler_give_embedding(scheduler, TAKE_PTR(worker->embedding));
}

/* What it allocates from here on lies where it runs (first touch), and its OpenMP threads follow. */
static int keep_to_cpus(struct worker *worker)
{
	int r = 0;

	if (worker->options.cpus)
		r = -pthread_setaffinity_np(pthread_self(), sizeof(worker->cpus), &worker->cpus);
	if (worker->options.n_threads > 0)
		omp_set_num_threads((int)worker->options.n_threads);
	return r < 0 ? diag_set(&worker->diag, -r, "its CPUs: %s", strerror(-r)) : 0;
}

static void *worker_run(void *arg)
{
	struct worker *worker = arg;
	struct scheduler *scheduler;
	int r;

	(void)pthread_setname_np(pthread_self(), "inference");
	/* Beside processes that never sleep a request does not wait for their slices; OpenMP's threads
	 * inherit it. */
	(void)slice_shorten();
	r = keep_to_cpus(worker);
	(void)pthread_mutex_lock(worker->options.packing);
	if (r == 0)
		r = build(worker);
	(void)pthread_mutex_unlock(worker->options.packing);
	if (r < 0 && worker->diag.text[0] == '\0')
		(void)diag_set(&worker->diag, -r, "%s", strerror(-r));
	atomic_store(&worker->state, r < 0 ? INFERENCE_FAILED : INFERENCE_READY);
	worker->options.on_ready(worker->options.owner);
	if (r >= 0) {
		scheduler = wait_for_work(worker);
		if (scheduler)
			serve_batches(worker, scheduler);
		wait_for_stop(worker);
	}
	/* oneDNN's objects go on the thread that made them. */
	destroy(worker);
	return NULL;
}

int worker_start(struct worker **ret_worker, const struct worker_options *options)
{
	struct worker *worker = calloc(1, sizeof(*worker));
	int r;

	if (!worker)
		return -ENOMEM;
	worker->options = *options;
	if (options->cpus) {
		worker->cpus = *options->cpus;
		worker->options.cpus = &worker->cpus;
	}
	(void)pthread_mutex_init(&worker->lock, NULL);
	(void)pthread_cond_init(&worker->told, NULL);
	r = -pthread_create(&worker->thread, NULL, worker_run, worker);
	worker->joinable = r == 0;
	if (r < 0) {
		worker_free(worker);
		return r;
	}
	*ret_worker = worker;
	return 0;
}

void worker_serve(struct worker *worker, struct scheduler *scheduler)
{
	(void)pthread_mutex_lock(&worker->lock);
	worker->scheduler = scheduler;
	(void)pthread_cond_broadcast(&worker->told);
	(void)pthread_mutex_unlock(&worker->lock);
}

void worker_finish(struct worker *worker)
{
	(void)pthread_mutex_lock(&worker->lock);
	while (!worker->finished)
		(void)pthread_cond_wait(&worker->told, &worker->lock);
	(void)pthread_mutex_unlock(&worker->lock);
}

void worker_free(struct worker *worker)
{
	if (!worker)
		return;
	if (worker->joinable) {
		(void)pthread_mutex_lock(&worker->lock);
		worker->stop = true;
		(void)pthread_cond_broadcast(&worker->told);
		(void)pthread_mutex_unlock(&worker->lock);
		(void)pthread_join(worker->thread, NULL);
	}
	(void)pthread_cond_destroy(&worker->told);
	(void)pthread_mutex_destroy(&worker->lock);
	free(worker);
}

enum inference_state worker_state(const struct worker *worker)
{
	return (enum inference_state)atomic_load(&worker->state);
}

const char *worker_error(const struct worker *worker)
{
	return worker->diag.text;
}

struct vit *worker_vit(const struct worker *worker)
{
	return worker->vit;
}

bool worker_has(const struct worker *worker, enum precision precision)
{
	return worker->has[precision];
}

enum precision worker_precision(const struct worker *worker)
{
	return worker->precision;
}

bool worker_moves(struct worker *worker)
{
	/* In this order: what ends in between has begun before. */
	uint64_t ended = atomic_load(&worker->n_ended);
	uint64_t begun = atomic_load(&worker->n_begun);

	return heartbeat_moves(&worker->heartbeat, begun, ended);
}
