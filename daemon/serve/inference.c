/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/inference.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <sys/eventfd.h>

#include "serve/heartbeat.h"
#include "serve/limits.h"
#include "serve/shadow.h"

#define MAX_PLANS 24u

struct weight_slot {
	struct slot *slot;
	struct digest mask_id;
	bool used;
	uint64_t last;
};

struct plan {
	struct vit_plan *plan;
	uint32_t batch, px;
	uint64_t last;
};

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
	struct weight_slot *slots; /* (n_slots) */
	struct plan plans[MAX_PLANS];
	struct resize_scratch *scratch;
	float *embeddings;             /* (max_batch, width) */
	const float *input;            /* of the last batch's plan, until the next one */
	struct shadow_sample *samples; /* to be computed while nothing waits */
	uint64_t clock;
};

/* ---- slots and plans, least recently used goes */

static int slot_for(
	struct inference *inference, const struct serving *serving, struct slot **ret_slot)
{
	struct weight_slot *best = &inference->slots[0];
	int r;

	for (uint32_t i = 0; i < inference->options.n_slots; i++) {
		struct weight_slot *s = &inference->slots[i];

		if (s->used && digest_equal(&s->mask_id, &serving->mask_id)) {
			s->last = ++inference->clock;
			*ret_slot = s->slot;
			return 0;
		}
		if (s->last < best->last)
			best = s;
	}
	if (!best->slot) {
		r = vit_slot_new(&best->slot, inference->vit, SLOT_INFER);
		if (r < 0)
			return r;
	}
	/* A switch that fails half way leaves weights that belong to no mask. */
	best->used = false;
	r = slot_apply(best->slot, serving->mask);
	if (r < 0)
		return r;
	best->mask_id = serving->mask_id;
	best->used = true;
	best->last = ++inference->clock;
	atomic_fetch_add(&inference->stats.n_switches, 1);
	*ret_slot = best->slot;
	return 0;
}

static uint64_t plan_pixels(uint32_t batch, uint32_t px)
{
	return (uint64_t)batch * px * px;
}

/* Activations grow with the pixels of an input: they, not the number of plans, are what is bounded.
 * One that is too large by itself is then alone. */
static struct plan *room_for_plan(struct inference *inference, uint64_t wanted)
{
	const uint64_t budget = plan_pixels(inference->options.max_batch, SERVE_MAX_PX);

	for (;;) {
		struct plan *oldest = NULL, *unused = NULL;
		uint64_t held = 0;

		for (unsigned i = 0; i < MAX_PLANS; i++) {
			struct plan *p = &inference->plans[i];

			if (!p->plan) {
				unused = p;
				continue;
			}
			held += plan_pixels(p->batch, p->px);
			if (!oldest || p->last < oldest->last)
				oldest = p;
		}
		if (unused && (!oldest || held + wanted <= budget))
			return unused;
		vit_plan_free(oldest->plan);
		*oldest = (struct plan){ .plan = NULL };
	}
}

static int plan_for(
	struct inference *inference, uint32_t batch, uint32_t px, struct vit_plan **ret_plan)
{
	struct plan *made;
	int r;

	for (unsigned i = 0; i < MAX_PLANS; i++) {
		struct plan *p = &inference->plans[i];

		if (p->plan && p->batch == batch && p->px == px) {
			p->last = ++inference->clock;
			*ret_plan = p->plan;
			return 0;
		}
	}
	made = room_for_plan(inference, plan_pixels(batch, px));
	r = vit_plan_new(&made->plan, inference->vit, batch, px);
	if (r < 0)
		return r;
	made->batch = batch;
	made->px = px;
	made->last = ++inference->clock;
	atomic_fetch_add(&inference->stats.n_plans, 1);
	*ret_plan = made->plan;
	return 0;
}

/* ---- one batch */

static int forward(struct inference *inference, struct request *const *batch, uint32_t n,
	const struct serving *serving)
{
	uint32_t px = serving->prep.input_px;
	struct vit_plan *plan;
	struct slot *slot;
	float *input;
	int r;

	r = slot_for(inference, serving, &slot);
	if (r < 0)
		return r;
	r = plan_for(inference, n, px, &plan);
	if (r < 0)
		return r;
	input = vit_plan_input(plan); /* (n, 3, px, px) */
	for (uint32_t i = 0; i < n; i++) {
		r = prep_apply(&serving->prep, &batch[i]->view, input + (size_t)i * 3 * px * px,
			inference->scratch);
		if (r < 0)
			return r;
	}
	inference->input = input;
	return vit_forward(plan, slot, inference->embeddings);
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
	uint32_t width = vit_shape(inference->vit)->width;
	uint64_t begin = clock_now_ns(), compute_ns;
	int r;

	r = forward(inference, batch, n, serving);
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
	size_t width = vit_shape(inference->vit)->width;
	struct shadow_sample *next;

	for (struct shadow_sample *s = samples; s; s = next) {
		next = s->next;
		/* The champion may have changed between the draw and the batch. */
		if (s->theirs.code < 0 || s->serving->prep.input_px != serving->prep.input_px) {
			scheduler_give_sample(scheduler, s);
			continue;
		}
		s->champion = serving->version;
		memcpy(s->input, inference->input + s->at * s->n_input, s->n_input * sizeof(float));
		memcpy(s->embedding, inference->embeddings + s->at * width, width * sizeof(float));
		s->next = inference->samples;
		inference->samples = s;
	}
}

static int run_sample(struct inference *inference, struct shadow_sample *sample)
{
	uint32_t width = vit_shape(inference->vit)->width;
	uint64_t begin = clock_now_ns();
	struct vit_plan *plan;
	struct slot *slot;
	int r;

	r = slot_for(inference, sample->serving, &slot);
	if (r == 0)
		r = plan_for(inference, 1, sample->serving->prep.input_px, &plan);
	if (r < 0)
		return r;
	memcpy(vit_plan_input(plan), sample->input, sample->n_input * sizeof(float));
	r = vit_forward(plan, slot, inference->embeddings);
	if (r < 0)
		return r;
	judge(&sample->ours, inference->embeddings, sample->serving);
	sample->ours.compute_ns = clock_now_ns() - begin;
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
		sample->is_done = run_sample(inference, sample) == 0;
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
	_cleanup_(mask_freep) struct mask *all = NULL;
	struct serving base = { .mask = NULL };
	struct vit_plan *plan;
	struct slot *slot;
	int r;

	r = mask_new(&all, vit_layout(inference->vit));
	if (r < 0)
		return r;
	base.mask_id = mask_digest(all);
	r = slot_for(inference, &base, &slot);
	if (r < 0)
		return r;
	return plan_for(inference, 1, vit_native_prep(inference->vit).input_px, &plan);
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
	r = vit_selftest(inference->vit, diag);
	if (r < 0)
		return r;
	r = resize_scratch_new(&inference->scratch);
	if (r < 0)
		return r;
	inference->slots = calloc(o->n_slots, sizeof(*inference->slots));
	inference->embeddings = calloc((size_t)o->max_batch * width, sizeof(float));
	if (!inference->slots || !inference->embeddings)
		return -ENOMEM;
	r = warm_up(inference);
	if (r < 0)
		return diag_set(diag, -r, "cannot pack the model: %s", strerror(-r));
	return 0;
}

static void destroy(struct inference *inference)
{
	for (unsigned i = 0; i < MAX_PLANS; i++)
		vit_plan_free(inference->plans[i].plan);
	for (uint32_t i = 0; inference->slots && i < inference->options.n_slots; i++)
		slot_free(inference->slots[i].slot);
	free(inference->slots);
	free(inference->embeddings);
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
			scheduler_learn(scheduler, serving->prep.input_px, compute_ns);
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
	if (inference->options.n_slots == 0)
		inference->options.n_slots = 1;
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
