/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/inference.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <sys/eventfd.h>

#include "serve/heartbeat.h"
#include "serve/limits.h"
#include "serve/plans.h"
#include "serve/shadow.h"
#include "serve/slots.h"

struct inference {
	struct inference_options options;
	pthread_t thread;
	pthread_mutex_t lock; /* of scheduler and stop, while the thread waits for them */
	pthread_cond_t told;
	struct scheduler *scheduler;
	bool stop, joinable, finished;
	_Atomic int state;
	int ready_fd;
	struct diag diag;
	_Atomic uint64_t n_begun, n_ended; /* batches: the heartbeat */
	struct heartbeat heartbeat;
	struct inference_stats stats;

	/* The thread's own. */
	struct vit *vit;
	enum precision precision;
	struct slots *slots;
	struct plans *plans;
	struct resize_scratch *scratch;
	struct mask_set_scratch *set_scratch;
	float *embeddings; /* (max_batch, width) */
	float *pixels;     /* (n_pixels) of a cascade's batch: several forwards of it */
	size_t n_pixels;
	const float *input;            /* of the last batch, until the next one */
	struct shadow_sample *samples; /* to be computed while nothing waits */
};

/* ---- one batch */

static size_t input_size(const struct serving *serving)
{
	return (size_t)3 * serving->prep.input_px * serving->prep.input_px;
}

/* input (n, 3, px, px) */
static int prepare(struct inference *inference, struct request *const *batch, uint32_t n,
	const struct serving *serving, float *input)
{
	int r = 0;

	for (uint32_t i = 0; i < n && r >= 0; i++)
		r = prep_apply(&serving->prep, &batch[i]->view, input + i * input_size(serving),
			inference->scratch);
	inference->input = input;
	return r;
}

static int forward(struct inference *inference, struct request *const *batch, uint32_t n,
	const struct serving *serving)
{
	struct vit_plan *plan;
	struct slot *slot;
	int r;

	r = slots_take(inference->slots, serving->set, 0, serving->precision, &slot);
	if (r == 0)
		r = plans_take(
			inference->plans, n, serving->prep.input_px, serving->precision, &plan);
	if (r == 0)
		r = prepare(inference, batch, n, serving, vit_plan_input(plan));
	return r < 0 ? r : vit_forward(plan, slot, inference->embeddings);
}

/** Prepared images as the masks of a cascade are to see them. */
struct sight {
	struct inference *inference;
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
	struct inference *inference = sight->inference;
	size_t size = input_size(sight->serving), width = vit_shape(inference->vit)->width;
	struct slot *slot;
	uint32_t n_now;
	int r;

	if (sight->gives_way && !scheduler_is_idle(sight->gives_way))
		return -ECANCELED;
	r = slots_take(inference->slots, sight->serving->set, m, sight->serving->precision, &slot);
	for (uint32_t i = 0; i < n && r >= 0; i += n_now) {
		struct vit_plan *plan;

		n_now = part_of(n - i);
		r = plans_take(inference->plans, n_now, sight->serving->prep.input_px,
			sight->serving->precision, &plan);
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
static int pixels_for(struct inference *inference, size_t n_pixels)
{
	float *pixels;

	if (n_pixels <= inference->n_pixels)
		return 0;
	pixels = malloc(n_pixels * sizeof(*pixels));
	if (!pixels)
		return -ENOMEM;
	free(inference->pixels);
	inference->pixels = pixels;
	inference->n_pixels = n_pixels;
	return 0;
}

static int forward_cascade(struct inference *inference, struct request *const *batch, uint32_t n,
	const struct serving *serving)
{
	struct sight sight = { .inference = inference, .serving = serving };
	const struct mask_set_eye eye = { look, &sight };
	int r;

	r = pixels_for(inference, n * input_size(serving));
	if (r == 0)
		r = prepare(inference, batch, n, serving, inference->pixels);
	if (r < 0)
		return r;
	sight.pixels = inference->pixels;
	return mask_set_embed(inference->embeddings, serving->set, inference->set_scratch, &eye, n);
}

static void judge(struct answer *answer, const float *embedding, const struct serving *serving)
{
	answer->novelty = NAN;
	answer->distance = NAN;
	answer->verdict = SHM_UNKNOWN;
	if (!serving->reference)
		return;
	answer->distance = reference_distance(serving->reference, embedding);
	answer->novelty = reference_novelty(serving->reference, answer->distance);
	if (isnan(answer->novelty))
		return;
	answer->verdict = answer->novelty >= serving->threshold ? SHM_NG : SHM_OK;
}

static void write_answer(struct request *request, const float *embedding, uint32_t width,
	const struct serving *serving)
{
	struct answer *answer = &request->answer;

	answer->space = serving->space;
	memcpy(request->embedding, embedding, width * sizeof(float));
	answer->n_embedding = width;
	judge(answer, embedding, serving);
}

static void run_batch(struct inference *inference, struct request *const *batch, uint32_t n,
	const struct serving *serving, uint64_t *ret_compute_ns)
{
	struct inference_stats *stats = &inference->stats;
	uint32_t width = serving->set->n_out;
	uint64_t begin = clock_now_ns(), compute_ns;
	int r;

	r = serving->set->n_experts > 0 ? forward_cascade(inference, batch, n, serving)
					: forward(inference, batch, n, serving);
	for (uint32_t i = 0; i < n; i++) {
		batch[i]->answer.code = r;
		batch[i]->answer.reason = r < 0 ? "the forward pass failed" : NULL;
		batch[i]->answer.version = serving->version;
		batch[i]->answer.is_broken = r < 0;
		if (r >= 0)
			write_answer(batch[i], inference->embeddings + (size_t)i * width, width,
				serving);
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
static void keep_samples(struct inference *inference, struct scheduler *scheduler,
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
		memcpy(s->input, inference->input + s->at * s->n_input, s->n_input * sizeof(float));
		memcpy(s->embedding, inference->embeddings + s->at * width, width * sizeof(float));
		s->next = inference->samples;
		inference->samples = s;
	}
}

/* -ECANCELED: somebody waits. One forward is what a line may have to wait for, not a cascade. */
static int run_sample(
	struct inference *inference, struct scheduler *scheduler, struct shadow_sample *sample)
{
	struct sight sight = { inference, sample->serving, sample->input, scheduler };
	const struct mask_set_eye eye = { look, &sight };
	uint32_t width = sample->serving->set->n_out;
	uint64_t begin = clock_now_ns();
	int r;

	r = mask_set_embed(
		inference->embeddings, sample->serving->set, inference->set_scratch, &eye, 1);
	if (r < 0)
		return r;
	judge(&sample->ours, inference->embeddings, sample->serving);
	sample->ours.compute_ns = clock_now_ns() - begin;
	sample->cosine = NAN;
	if (!sample->is_comparable)
		return 0;
	cosine_normalise(inference->embeddings, inference->embeddings, 1, width);
	cosine_normalise(sample->embedding, sample->embedding, 1, width);
	sample->cosine = (double)cosine_dot(inference->embeddings, sample->embedding, width);
	return 0;
}

static void run_samples(struct inference *inference, struct scheduler *scheduler)
{
	while (inference->samples && scheduler_is_idle(scheduler)) {
		struct shadow_sample *sample = inference->samples;

		inference->samples = sample->next;
		atomic_fetch_add(&inference->n_begun, 1);
		sample->is_done = run_sample(inference, scheduler, sample) == 0;
		atomic_fetch_add(&inference->n_ended, 1);
		scheduler_give_sample(scheduler, sample);
	}
}

static void give_up_samples(struct inference *inference, struct scheduler *scheduler)
{
	while (inference->samples) {
		struct shadow_sample *sample = inference->samples;

		inference->samples = sample->next;
		scheduler_give_sample(scheduler, sample);
	}
}

/* ---- the thread */

/* So that the first request finds a packed model. */
static int warm_up(struct inference *inference)
{
	_cleanup_(mask_set_freep) struct mask_set *base = NULL;
	struct vit_plan *plan;
	struct slot *slot;
	int r;

	r = mask_set_of(&base, NULL, vit_layout(inference->vit), vit_shape(inference->vit)->width);
	if (r < 0)
		return r;
	r = slots_take(inference->slots, base, 0, inference->precision, &slot);
	if (r < 0)
		return r;
	return plans_take(inference->plans, 1, vit_native_prep(inference->vit).input_px,
		inference->precision, &plan);
}

/* The other one, too, if the CPU has it: versions are served in that one that were judged in it. */
static int choose_precision(struct inference *inference, struct diag *diag)
{
	const char *name = inference->options.precision;
	int r = 0;

	if (strcmp(name, "auto") == 0)
		inference->precision =
			vit_has(inference->vit, PRECISION_BF16) ? PRECISION_BF16 : PRECISION_F32;
	else
		r = precision_parse(&inference->precision, name);
	if (r < 0 || !vit_has(inference->vit, inference->precision))
		return diag_set(diag, EOPNOTSUPP, "precision %s: this CPU (%s) does not have it",
			name, vit_isa(inference->vit));
	for (enum precision p = 0; p < N_PRECISIONS && r == 0; p++)
		if (vit_has(inference->vit, p))
			r = vit_selftest(inference->vit, p, diag);
	return r;
}

static int make_room(struct inference *inference)
{
	const struct inference_options *o = &inference->options;
	const struct slots_options slots = {
		.vit = inference->vit,
		.n = o->n_slots,
		.memory = o->slot_memory,
		.n_switches = &inference->stats.n_switches,
		.n_bytes = &inference->stats.slot_bytes,
	};
	int r = slots_new(&inference->slots, &slots);

	return r < 0 ? r
		     : plans_new(&inference->plans, inference->vit, o->max_batch,
			       &inference->stats.n_plans);
}

static int build(struct inference *inference)
{
	const struct inference_options *o = &inference->options;
	struct diag *diag = &inference->diag;
	uint32_t width;
	int r;

	r = vit_new(&inference->vit, o->base, o->family[0] ? o->family : NULL, diag);
	if (r < 0)
		return r;
	width = vit_shape(inference->vit)->width;
	if (width > SHM_MAX_EMBEDDING)
		return diag_set(diag, EOPNOTSUPP,
			"embeddings of %u numbers, at most %u fit a result", width,
			SHM_MAX_EMBEDDING);
	r = choose_precision(inference, diag);
	if (r < 0)
		return r;
	r = resize_scratch_new(&inference->scratch);
	if (r == 0)
		r = mask_set_scratch_new(
			&inference->set_scratch, o->max_batch, CASCADE_MAX_EXPERTS, width);
	if (r < 0)
		return r;
	r = make_room(inference);
	if (r < 0)
		return r;
	inference->embeddings = calloc((size_t)o->max_batch * width, sizeof(float));
	if (!inference->embeddings)
		return -ENOMEM;
	r = warm_up(inference);
	if (r < 0)
		return diag_set(diag, -r, "cannot pack the model: %s", strerror(-r));
	return 0;
}

static void destroy(struct inference *inference)
{
	plans_free(inference->plans);
	slots_free(inference->slots);
	free(inference->embeddings);
	free(inference->pixels);
	mask_set_scratch_free(inference->set_scratch);
	resize_scratch_free(inference->scratch);
	vit_free(inference->vit);
}

static struct scheduler *wait_for_work(struct inference *inference)
{
	struct scheduler *scheduler;

	(void)pthread_mutex_lock(&inference->lock);
	while (!inference->scheduler && !inference->stop)
		(void)pthread_cond_wait(&inference->told, &inference->lock);
	scheduler = inference->stop ? NULL : inference->scheduler;
	(void)pthread_mutex_unlock(&inference->lock);
	return scheduler;
}

/* The model stays until nobody reads its layout any more. */
static void wait_for_stop(struct inference *inference)
{
	(void)pthread_mutex_lock(&inference->lock);
	inference->finished = true;
	(void)pthread_cond_broadcast(&inference->told);
	while (!inference->stop)
		(void)pthread_cond_wait(&inference->told, &inference->lock);
	(void)pthread_mutex_unlock(&inference->lock);
}

static void serve_batches(struct inference *inference, struct scheduler *scheduler)
{
	struct request *batch[SERVE_MAX_BATCH];
	struct shadow_sample *samples;
	struct serving *serving;
	uint64_t compute_ns;
	uint32_t n;

	for (;;) {
		run_samples(inference, scheduler);
		n = scheduler_take(scheduler, batch, &serving);
		if (n == 0)
			break;
		atomic_fetch_add(&inference->n_begun, 1);
		run_batch(inference, batch, n, serving, &compute_ns);
		atomic_fetch_add(&inference->n_ended, 1);
		if (compute_ns < UINT64_MAX)
			scheduler_learn(scheduler, serving, compute_ns);
		samples = detach_samples(batch, n);
		scheduler_give(scheduler, batch, n);
		keep_samples(inference, scheduler, samples, serving);
		serving_unref(serving);
	}
	give_up_samples(inference, scheduler);
}

static void *inference_run(void *arg)
{
	struct inference *inference = arg;
	struct scheduler *scheduler;
	uint64_t one = 1;
	int r;

	(void)pthread_setname_np(pthread_self(), "inference");
	r = build(inference);
	if (r < 0 && inference->diag.text[0] == '\0')
		(void)diag_set(&inference->diag, -r, "%s", strerror(-r));
	atomic_store(&inference->state, r < 0 ? INFERENCE_FAILED : INFERENCE_READY);
	if (write(inference->ready_fd, &one, sizeof(one)) < 0)
		return NULL;
	if (r >= 0) {
		scheduler = wait_for_work(inference);
		if (scheduler)
			serve_batches(inference, scheduler);
		wait_for_stop(inference);
	}
	/* oneDNN's objects go on the thread that made them. */
	destroy(inference);
	return NULL;
}

int inference_start(struct inference **ret_inference, const struct inference_options *options)
{
	struct inference *inference;
	int r;

	inference = calloc(1, sizeof(*inference));
	if (!inference)
		return -ENOMEM;
	inference->options = *options;
	if (inference->options.max_batch > SERVE_MAX_BATCH)
		inference->options.max_batch = SERVE_MAX_BATCH;
	inference->ready_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (inference->ready_fd < 0) {
		r = -errno;
		free(inference);
		return r;
	}
	(void)pthread_mutex_init(&inference->lock, NULL);
	(void)pthread_cond_init(&inference->told, NULL);
	r = -pthread_create(&inference->thread, NULL, inference_run, inference);
	inference->joinable = r == 0;
	if (r < 0) {
		inference_free(inference);
		return r;
	}
	*ret_inference = inference;
	return 0;
}

void inference_serve(struct inference *inference, struct scheduler *scheduler)
{
	(void)pthread_mutex_lock(&inference->lock);
	inference->scheduler = scheduler;
	(void)pthread_cond_broadcast(&inference->told);
	(void)pthread_mutex_unlock(&inference->lock);
}

void inference_finish(struct inference *inference)
{
	(void)pthread_mutex_lock(&inference->lock);
	while (!inference->finished)
		(void)pthread_cond_wait(&inference->told, &inference->lock);
	(void)pthread_mutex_unlock(&inference->lock);
}

void inference_free(struct inference *inference)
{
	if (!inference)
		return;
	if (inference->joinable) {
		(void)pthread_mutex_lock(&inference->lock);
		inference->stop = true;
		(void)pthread_cond_broadcast(&inference->told);
		(void)pthread_mutex_unlock(&inference->lock);
		(void)pthread_join(inference->thread, NULL);
	}
	(void)pthread_cond_destroy(&inference->told);
	(void)pthread_mutex_destroy(&inference->lock);
	(void)close(inference->ready_fd);
	free(inference);
}

int inference_fd(const struct inference *inference)
{
	return inference->ready_fd;
}

enum inference_state inference_state(const struct inference *inference)
{
	return (enum inference_state)atomic_load(&inference->state);
}

const char *inference_error(const struct inference *inference)
{
	return inference->diag.text;
}

struct vit *inference_vit(const struct inference *inference)
{
	return inference->vit;
}

enum precision inference_precision(const struct inference *inference)
{
	return inference->precision;
}

const struct inference_stats *inference_stats(const struct inference *inference)
{
	return &inference->stats;
}

bool inference_moves(struct inference *inference)
{
	/* In this order: what ends in between has begun before. */
	uint64_t ended = atomic_load(&inference->n_ended);
	uint64_t begun = atomic_load(&inference->n_begun);

	return heartbeat_moves(&inference->heartbeat, begun, ended);
}
