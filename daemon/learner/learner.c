/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <omp.h>
#include <poll.h>
#include <string.h>

#include "engine.h"
#include "learner/job.h"
#include "learner/process.h"
#include "ops/log.h"
#include "role.h"
#include "wire.h"

/** A job's message, which must outlive the packets that arrive while it runs. */
struct order {
	struct wire *wire;
	const Kamen__LearnJob *message; /* NULL: none */
};

struct learner {
	struct base *base;
	struct vit *vit;
	struct wire *wire; /* of the socket */
	struct order order;
	struct order next; /* comes while a cancelled job is still on its way out */
	struct job *job;
	uint32_t percentage;
	bool is_closed, is_cancelled, has_stepped;
};

static void learner_done(struct learner *learner)
{
	job_free(learner->job);
	wire_free(learner->order.wire);
	wire_free(learner->next.wire);
	wire_free(learner->wire);
	vit_free(learner->vit);
	base_free(learner->base);
}

/* ---- talking to serve */

static void wait_for(const struct learner *learner, short events, int timeout_ms)
{
	struct pollfd poller = { .fd = ROLE_SOCKET, .events = events };

	(void)learner;
	(void)poll(&poller, 1, timeout_ms);
}

/* must: waits until serve reads; else what does not fit now is not said. */
static void say(struct learner *learner, const Kamen__RoleMessage *message, bool must)
{
	int r;

	do {
		r = wire_send(ROLE_SOCKET, &message->base, NULL, 0);
		if (r == -EAGAIN && must)
			wait_for(learner, POLLOUT, -1);
	} while (r == -EAGAIN && must);
	if (r == -EPIPE || r == -ECONNRESET)
		learner->is_closed = true;
	else if (r < 0 && r != -EAGAIN)
		log_warning("serve was not told: %s", strerror(-r));
}

static void say_ready(struct learner *learner)
{
	Kamen__RoleMessage message = KAMEN__ROLE_MESSAGE__INIT;
	Kamen__RoleReady ready = KAMEN__ROLE_READY__INIT;

	ready.role = (char *)"learner";
	ready.has_major = ready.has_minor = true;
	ready.major = WIRE_MAJOR;
	ready.minor = WIRE_MINOR;
	ready.isa = (char *)vit_isa(learner->vit);
	ready.has_threads = true;
	ready.threads = (uint32_t)omp_get_max_threads();
	message.kind_case = KAMEN__ROLE_MESSAGE__KIND_READY;
	message.ready = &ready;
	say(learner, &message, true);
}

static void say_failed(
	struct learner *learner, const char *site, uint32_t version, const char *reason)
{
	Kamen__RoleMessage message = KAMEN__ROLE_MESSAGE__INIT;
	Kamen__LearnFailed failed = KAMEN__LEARN_FAILED__INIT;

	failed.site = (char *)site;
	failed.version = version;
	failed.reason = (char *)reason;
	message.kind_case = KAMEN__ROLE_MESSAGE__KIND_FAILED;
	message.failed = &failed;
	say(learner, &message, true);
}

static void say_progress(
	struct learner *learner, const struct round_progress *progress, double step_seconds)
{
	Kamen__RoleMessage message = KAMEN__ROLE_MESSAGE__INIT;
	Kamen__Progress out = KAMEN__PROGRESS__INIT;

	out.site = (char *)job_site(learner->job);
	out.version = job_version(learner->job);
	out.has_step = out.has_steps = out.has_loss_ratio = out.has_density = true;
	out.has_lowest_density = out.has_seconds = out.has_seconds_left = true;
	out.step = progress->step;
	out.steps = progress->steps;
	out.loss_ratio = progress->loss_ratio;
	out.density = progress->density;
	out.lowest_density = progress->lowest_density;
	out.seconds = job_seconds(learner->job);
	out.seconds_left = step_seconds * (progress->steps - progress->step);
	message.kind_case = KAMEN__ROLE_MESSAGE__KIND_PROGRESS;
	message.progress = &out;
	say(learner, &message, false);
}

static Kamen__Judgement judgement_message(const struct judgement *judgement)
{
	Kamen__Judgement out = KAMEN__JUDGEMENT__INIT;

	out.has_n = out.has_retrieval = out.has_margin = out.has_effective_rank = true;
	out.n = judgement->n;
	out.retrieval = judgement->retrieval;
	out.margin = judgement->margin;
	out.effective_rank = judgement->effective_rank;
	out.has_retrieval_error = out.has_margin_error = true;
	out.retrieval_error = judgement->retrieval_error;
	out.margin_error = judgement->margin_error;
	return out;
}

static void add_shots(
	Kamen__Judgement *out, const struct few_shot *few_shot, const struct figures *figures)
{
	if (few_shot->n == 0)
		return;
	out->has_labelled = out->has_classes = out->has_shot1 = out->has_shot5 = true;
	out->labelled = few_shot->n;
	out->classes = few_shot->n_classes;
	out->shot1 = (float)figures->shot1;
	out->shot5 = (float)figures->shot5;
}

static void add_differences(Kamen__Judgement *out, const struct few_shot *few_shot)
{
	if (few_shot->n == 0)
		return;
	out->has_shot1_diff_lo = out->has_shot1_diff_hi = true;
	out->has_shot5_diff_lo = out->has_shot5_diff_hi = true;
	out->shot1_diff_lo = (float)few_shot->shot1.lo;
	out->shot1_diff_hi = (float)few_shot->shot1.hi;
	out->shot5_diff_lo = (float)few_shot->shot5.lo;
	out->shot5_diff_hi = (float)few_shot->shot5.hi;
}

static Kamen__Judgement candidate_message(const struct results *results)
{
	Kamen__Judgement out = judgement_message(&results->candidate);

	out.has_prototype_entropy = results->has_entropy;
	out.prototype_entropy = results->entropy;
	out.has_neighbours = results->has_neighbours;
	out.neighbours = results->neighbours;
	add_shots(&out, &results->few_shot, &results->few_shot.candidate);
	add_differences(&out, &results->few_shot);
	return out;
}

static ProtobufCBinaryData digest_bytes(struct digest *digest)
{
	return (ProtobufCBinaryData){ .len = DIGEST_BYTES, .data = digest->bytes };
}

static size_t fill_figures(
	Kamen__Figure *figures, Kamen__Figure **list, const struct round_progress *progress)
{
	for (uint32_t i = 0; i < progress->n_figures; i++) {
		kamen__figure__init(&figures[i]);
		figures[i].name = (char *)progress->figures[i].name;
		figures[i].value = (double)progress->figures[i].value;
		list[i] = &figures[i];
	}
	return progress->n_figures;
}

static void say_done(struct learner *learner, struct job_done *done)
{
	Kamen__Figure figures[ROUND_MAX_FIGURES], *list[ROUND_MAX_FIGURES];
	static const struct digest none;
	Kamen__Judgement frozen = judgement_message(&done->results.frozen);
	Kamen__Judgement candidate = candidate_message(&done->results);
	Kamen__RoleMessage message = KAMEN__ROLE_MESSAGE__INIT;
	Kamen__LearnDone out = KAMEN__LEARN_DONE__INIT;

	add_shots(&frozen, &done->results.few_shot, &done->results.few_shot.frozen);
	out.site = (char *)job_site(learner->job);
	out.version = job_version(learner->job);
	out.has_steps = out.has_seed = out.has_seconds = out.has_density = true;
	out.has_lowest_density = out.has_n_flips = out.has_n_images = out.has_threads = true;
	out.has_manifest_digest = true;
	out.steps = done->last.steps;
	out.has_kept_step = true;
	out.kept_step = done->last.step;
	out.seed = done->seed;
	out.seconds = done->seconds;
	out.has_loss_ratio = done->last.loss_ratio != 0;
	out.loss_ratio = (double)done->last.loss_ratio;
	out.density = done->last.density;
	out.lowest_density = done->last.lowest_density;
	out.n_flips = done->last.n_flips;
	out.frozen = &frozen;
	out.candidate = &candidate;
	out.n_images = done->n_images;
	out.manifest_digest = digest_bytes(&done->manifest);
	out.has_recipe_digest = !digest_equal(&done->recipe, &none);
	out.recipe_digest = digest_bytes(&done->recipe);
	out.recipe = done->recipe_text.text[0] ? done->recipe_text.text : NULL;
	out.has_mask_digest = true;
	out.mask_digest = digest_bytes(&done->mask);
	out.isa = (char *)vit_isa(learner->vit);
	out.threads = (uint32_t)omp_get_max_threads();
	out.figures = list;
	out.n_figures = fill_figures(figures, list, &done->last);
	message.kind_case = KAMEN__ROLE_MESSAGE__KIND_DONE;
	message.done = &out;
	say(learner, &message, true);
}

/* ---- hearing from serve */

static int keep_order(struct order *order, const Kamen__LearnJob *message)
{
	_cleanup_(freep) void *data = NULL;
	ProtobufCMessage *copy;
	size_t n_bytes;
	int r;

	r = wire_encode(&message->base, &data, &n_bytes);
	if (r == 0)
		r = wire_decode(order->wire, &kamen__learn_job__descriptor, data, n_bytes, &copy);
	if (r < 0)
		return r;
	order->message = (const Kamen__LearnJob *)copy;
	return 0;
}

static void hear_job(struct learner *learner, const Kamen__LearnJob *message)
{
	struct order *order = learner->order.message ? &learner->next : &learner->order;
	int r;

	if (order->message || (order == &learner->next && !learner->is_cancelled)) {
		say_failed(learner, message->site, message->version, "the learner is busy");
		return;
	}
	r = keep_order(order, message);
	if (r < 0)
		say_failed(learner, message->site, message->version, strerror(-r));
}

static void hear_cancel(struct learner *learner, const char *site)
{
	if (learner->next.message && strcmp(site, learner->next.message->site) == 0)
		learner->next.message = NULL;
	if (learner->order.message && strcmp(site, learner->order.message->site) == 0)
		learner->is_cancelled = true;
}

static void hear_one(struct learner *learner, const Kamen__RoleMessage *message)
{
	switch (message->kind_case) {
	case KAMEN__ROLE_MESSAGE__KIND_LEARN:
		hear_job(learner, message->learn);
		break;
	case KAMEN__ROLE_MESSAGE__KIND_CANCEL:
		hear_cancel(learner, message->cancel->site);
		break;
	default:
		log_warning("the learner was sent a message that is not for it (%d)",
			(int)message->kind_case);
	}
}

/* Everything that has arrived. */
static void hear(struct learner *learner)
{
	ProtobufCMessage *message;
	int r;

	do {
		r = wire_recv(
			learner->wire, ROLE_SOCKET, &kamen__role_message__descriptor, &message);
		if (r > 0)
			hear_one(learner, (const Kamen__RoleMessage *)message);
		else if (r == -EBADMSG)
			log_warning("serve sent a damaged message");
	} while (r > 0 || r == -EBADMSG || r == -EINTR);
	if (r != -EAGAIN)
		learner->is_closed = true;
}

static int check(void *owner)
{
	struct learner *learner = owner;

	hear(learner);
	return learner->is_closed || learner->is_cancelled ? -ECANCELED : 0;
}

/* ---- the job */

static void drop_job(struct learner *learner)
{
	const struct order done = learner->order;

	job_free(TAKE_PTR(learner->job));
	learner->order = learner->next;
	learner->next = (struct order){ .wire = done.wire };
	learner->is_cancelled = false;
}

/* The way out of a job that will not be finished. Who cancelled it, or has gone, is told nothing. */
static void give_up(struct learner *learner, int r, const char *reason)
{
	const Kamen__LearnJob *message = learner->order.message;

	if (r == -ECANCELED && learner->is_closed)
		return;
	log_notice("site %s: version %u is given up: %s", message->site, message->version,
		r == -ECANCELED ? "cancelled" : reason);
	if (r != -ECANCELED)
		say_failed(learner, message->site, message->version, reason);
	drop_job(learner);
}

static void begin_job(struct learner *learner)
{
	const struct interrupt interrupt = { .check = check, .owner = learner };
	const Kamen__LearnJob *message = learner->order.message;
	struct diag notice = { "" }, diag = { "" };
	int r;

	learner->has_stepped = false;
	r = job_new(&learner->job, learner->vit, message, interrupt, &notice, &diag);
	if (notice.text[0])
		log_warning(
			"site %s: version %u: %s", message->site, message->version, notice.text);
	if (r < 0)
		give_up(learner, r, diag.text[0] ? diag.text : strerror(-r));
	else
		log_info("site %s: version %u begins", message->site, message->version);
}

static void finish_job(struct learner *learner)
{
	struct diag diag = { "" };
	struct job_done done;
	int r;

	r = job_finish(learner->job, &done, &diag);
	if (r < 0) {
		give_up(learner, r, diag.text[0] ? diag.text : strerror(-r));
		return;
	}
	if (diag.text[0])
		log_warning("site %s: version %u: %s", job_site(learner->job),
			job_version(learner->job), diag.text);
	log_info("site %s: version %u: step %u of %u, density %.5f, two-view retrieval %.3f from "
		 "%.3f, margin %.3f from %.3f",
		job_site(learner->job), job_version(learner->job), done.last.step, done.last.steps,
		done.last.density, (double)done.results.candidate.retrieval,
		(double)done.results.frozen.retrieval, (double)done.results.candidate.margin,
		(double)done.results.frozen.margin);
	say_done(learner, &done);
	drop_job(learner);
}

static void step_job(struct learner *learner)
{
	uint64_t started_ns = clock_now_ns(), worked_ns;
	struct round_progress progress;
	struct diag diag = { "" };
	int r;

	r = job_step(learner->job, &progress, &diag);
	if (r < 0) {
		give_up(learner, r, diag.text[0] ? diag.text : strerror(-r));
		return;
	}
	if (r == 0) {
		finish_job(learner);
		return;
	}
	if (diag.text[0])
		log_notice("site %s: version %u ends early: %s", job_site(learner->job),
			job_version(learner->job), diag.text);
	worked_ns = clock_now_ns() - started_ns;
	if (!learner->has_stepped && progress.step > 1)
		log_info("site %s: version %u goes on after step %u", job_site(learner->job),
			job_version(learner->job), progress.step - 1);
	learner->has_stepped = true;
	say_progress(learner, &progress,
		(double)worked_ns / (double)NS_PER_S * 100 / learner->percentage);
	if (learner->percentage < 100)
		wait_for(learner, POLLIN,
			(int)(process_rest_ns(learner->percentage, worked_ns) / NS_PER_MS));
}

static void run(struct learner *learner)
{
	for (;;) {
		if (!learner->order.message)
			wait_for(learner, POLLIN, -1);
		hear(learner);
		if (learner->is_closed)
			break;
		if (learner->job && learner->is_cancelled)
			give_up(learner, -ECANCELED, "");
		else if (learner->job)
			step_job(learner);
		else if (learner->order.message)
			begin_job(learner);
	}
	if (learner->job && job_save(learner->job) < 0)
		log_warning("site %s: no checkpoint", job_site(learner->job));
}

static int set_up(struct learner *learner, const struct config *config, struct diag *diag)
{
	const char *family = config->model_family[0] ? config->model_family : NULL;
	int r;

	r = wire_new(&learner->wire);
	if (r == 0)
		r = wire_new(&learner->order.wire);
	if (r == 0)
		r = wire_new(&learner->next.wire);
	if (r == 0)
		r = base_from_fd(&learner->base, ROLE_BASE, diag);
	if (r == 0)
		r = vit_new(&learner->vit, learner->base, family, diag);
	if (r == 0)
		r = vit_selftest(learner->vit, PRECISION_F32, diag);
	if (r == 0 && vit_has(learner->vit, PRECISION_BF16))
		r = vit_selftest(learner->vit, PRECISION_BF16, diag);
	return r;
}

int learner_main(const struct config *config)
{
	_cleanup_(learner_done) struct learner learner = { 0 };
	struct diag diag = { "" };
	int r;

	learner.percentage = process_step_back(config->learner_cpu);
	r = set_up(&learner, config, &diag);
	if (r < 0) {
		log_error("learner: %s", diag.text[0] ? diag.text : strerror(-r));
		return EXIT_FAILURE;
	}
	say_ready(&learner);
	run(&learner);
	return EXIT_SUCCESS;
}
