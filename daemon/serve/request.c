/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/request.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>

#include "serve/limits.h"
#include "serve/selection.h"
#include "serve/serve.h"
#include "serve/shadow.h"
#include "serve/submission.h"

/* ---- life */

void request_reset(struct request *request)
{
	request->received_ns = clock_now_ns();
	request->site = NULL;
	request->serving = NULL;
	request->decoded = NULL;
	request->job_id = 0;
	request->job_tries = 0;
	request->job_next = NULL;
	request->next = NULL;
	request->sample = NULL;
	request->answer =
		(struct answer){ .novelty = NAN, .distance = NAN, .score = NAN, .unknown = NAN };
	atomic_store(&request->state, REQUEST_PENDING);
}

static void count(const struct request *request, const struct answer *answer)
{
	struct site *site = request->site;

	if (!site)
		return;
	site->n_requests++;
	if (answer->code == -ETIMEDOUT)
		site->n_late++;
	else if (answer->code < 0)
		site->n_failed++;
	else if (request->wire.verb == SHM_INFER)
		site->n_verdicts[answer->verdict]++;
	site->n_labelled += answer->label[0] != '\0';
	site->n_unlike += answer->label[0] == '\0' && !isnan(answer->unknown);
	histogram_add(&site->latency, clock_now_ns() - request->received_ns);
}

/* Who is refused learns which space the site is in, to ask again in that one. */
static void fill_space(const struct request *request, struct answer *answer)
{
	struct serve *serve = request->session->serve;
	struct serving *champion;

	if (answer->code == 0 || !request->site)
		return;
	champion = scheduler_champion(serve->scheduler, &request->site->queue);
	if (champion)
		answer->space = champion->space;
	serving_unref(champion);
}

static void send_answer(struct request *request, const struct answer *answer)
{
	struct answer told = *answer;

	fill_space(request, &told);
	if (request->timer)
		(void)sd_event_source_set_enabled(request->timer, SD_EVENT_OFF);
	request->session->serve->n_pending--;
	count(request, answer);
	session_answer(request->session, request, &told);
	feed_result(request->session->serve, request, &told);
	/* After its client was told: a rollback takes its time. */
	if (request->site)
		live_answer(request->session->serve, request, answer);
}

/* The loop's half of the compare-and-swap. False: somebody else has answered. */
static bool claim(struct request *request)
{
	int pending = REQUEST_PENDING;

	return atomic_compare_exchange_strong(&request->state, &pending, REQUEST_LATE);
}

/* The inference thread may still be writing to request->answer: this one is made beside it. */
static bool give_up(struct request *request, int code, const char *reason)
{
	const struct answer answer = {
		.code = code,
		.reason = reason,
		.novelty = NAN,
		.distance = NAN,
		.score = NAN,
		.unknown = NAN,
		.queue_ns = clock_now_ns() - request->received_ns,
	};

	if (!claim(request))
		return false;
	send_answer(request, &answer);
	return true;
}

void request_fail(struct request *request, int code, const char *format, ...)
{
	char reason[SHM_REASON_CHARS];
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(reason, sizeof(reason), format, ap);
	va_end(ap);
	(void)give_up(request, code, reason);
}

static void request_release(struct serve *serve, struct request *request)
{
	if (request->timer)
		(void)sd_event_source_set_enabled(request->timer, SD_EVENT_OFF);
	if (request->decoded) {
		hand_unmap(serve->hand, request->decoded, request->decoded_bytes);
		serve->decoder.n_bytes -= request->decoded_bytes;
	}
	request->decoded = NULL;
	shadow_free(serve, TAKE_PTR(request->sample));
	serving_unref(TAKE_PTR(request->serving));
	site_unref(TAKE_PTR(request->site));
	session_put(request->session, request);
	serve_check_drained(serve);
}

void request_finish(struct serve *serve, struct request *request)
{
	/* DONE: the inference thread won and nobody has told the client yet. */
	if (atomic_load(&request->state) == REQUEST_DONE)
		send_answer(request, &request->answer);
	request_release(serve, request);
}

void request_complete(struct serve *serve, struct request *request)
{
	int pending = REQUEST_PENDING;

	(void)atomic_compare_exchange_strong(&request->state, &pending, REQUEST_DONE);
	request_finish(serve, request);
}

/* Takes a request back from wherever it waits. False: the inference thread has it. */
static bool recall(struct serve *serve, struct request *request)
{
	if (request->reading.waits || serve->reading.request == request)
		return reading_forget(serve, request);
	if (request->job_id > 0) {
		decoder_forget(serve, request);
		return true;
	}
	return request->site && scheduler_remove(serve->scheduler, request);
}

void request_abandon(struct serve *serve, struct request *request)
{
	if (give_up(request, -ENOTCONN, NULL) && recall(serve, request))
		request_release(serve, request);
}

void request_reap(struct serve *serve)
{
	struct request *next;

	for (struct request *q = scheduler_reap(serve->scheduler); q; q = next) {
		next = q->next;
		request_finish(serve, q);
	}
	shadow_reap(serve);
	changes_reap(serve);
}

/* ---- deadline */

static int on_deadline(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct request *request = userdata;
	struct serve *serve = request->session->serve;

	(void)source;
	(void)usec;
	if (give_up(request, -ETIMEDOUT, "deadline") && recall(serve, request))
		request_release(serve, request);
	return 0;
}

static int watch_deadline(struct serve *serve, struct request *request)
{
	uint64_t usec = request->wire.deadline_ns / NS_PER_US;
	int r;

	if (request->wire.deadline_ns == 0)
		return 0;
	if (!request->timer) {
		r = sd_event_add_time(serve->event, &request->timer, CLOCK_MONOTONIC, usec, 1,
			on_deadline, request);
		/* Before anybody's next submissions. */
		return r < 0 ? r
			     : sd_event_source_set_priority(
				       request->timer, SD_EVENT_PRIORITY_IMPORTANT);
	}
	r = sd_event_source_set_time(request->timer, usec);
	if (r < 0)
		return r;
	return sd_event_source_set_enabled(request->timer, SD_EVENT_ONESHOT);
}

/* ---- what a client asks for */

static void refuse(struct serve *serve, struct request *request, int code, const char *reason)
{
	request_fail(request, code, "%s", reason);
	request_release(serve, request);
}

static void echo(struct serve *serve, struct request *request)
{
	const struct session_shm *shm = &request->session->shm;

	if (request->wire.n_bytes > SERVE_READ_AT_ONCE) {
		int r = watch_deadline(serve, request);

		if (r >= 0)
			r = reading_start(serve, request);
		if (r < 0)
			refuse(serve, request, r, "no memory for an echo");
		return;
	}
	request->answer.checksum =
		digest_checksum(session_shm_slot(shm, request->wire.slot), request->wire.n_bytes);
	request_complete(serve, request);
}

static void set_view(struct request *request)
{
	const struct shm_request *wire = &request->wire;

	request->view = (struct image_view){
		.pixels = session_shm_slot(&request->session->shm, wire->slot),
		.width = wire->width,
		.height = wire->height,
		.n_channels = shm_n_channels(wire->format),
		.stride = wire->stride,
		.is_bgr = wire->format == SHM_BGR8,
	};
}

void request_queue(struct serve *serve, struct request *request)
{
	int r;

	if (request->site->gone) {
		refuse(serve, request, -ENOENT, "the site was deleted");
		return;
	}
	shadow_draw(serve, request);
	r = scheduler_push(serve->scheduler, request);
	if (r == -ETIMEDOUT)
		refuse(serve, request, r, "deadline: no forward of this size is that fast");
	else if (r < 0)
		refuse(serve, request, r, "the site's queue is full");
}

static void start_on_site(struct serve *serve, struct request *request)
{
	struct shm_request *wire = &request->wire;
	struct diag diag = { .text = "" };
	int r;

	if (wire->verb == SHM_INFER) {
		r = selection_make(serve, request, &diag);
		if (r < 0) {
			refuse(serve, request, r, diag.text[0] ? diag.text : strerror(-r));
			return;
		}
	}
	r = watch_deadline(serve, request);
	if (r < 0) {
		refuse(serve, request, r, "no memory for a deadline");
		return;
	}
	if (wire->verb == SHM_INFER && wire->format != SHM_ENCODED) {
		set_view(request);
		request_queue(serve, request);
		return;
	}
	r = decoder_submit(serve, request);
	if (r < 0)
		refuse(serve, request, r, "cannot hand the image to ingest");
}

static void start(struct serve *serve, struct request *request)
{
	struct shm_request *wire = &request->wire;
	const char *wrong;
	int code;

	wrong = submission_check(wire, request->session->shm.slot_bytes, &code);
	if (wrong) {
		refuse(serve, request, code, wrong);
		return;
	}
	if (wire->deadline_ns > 0 && wire->deadline_ns <= request->received_ns) {
		refuse(serve, request, -ETIMEDOUT, "deadline");
		return;
	}
	if (wire->verb == SHM_ECHO) {
		echo(serve, request);
		return;
	}
	request->site = sites_find(&serve->sites, wire->site);
	if (!request->site) {
		request_fail(request, -ENOENT, "there is no site '%.64s'", wire->site);
		request_release(serve, request);
		return;
	}
	(void)site_ref(request->site);
	start_on_site(serve, request);
}

void request_start(struct serve *serve, struct request *request)
{
	struct diag diag = { .text = "" };
	int r;

	serve->n_pending++;
	r = quota_ask(&serve->quotas, request->session->user, &serve->config, request->received_ns,
		&diag);
	if (r < 0)
		refuse(serve, request, r, diag.text);
	else
		start(serve, request);
}

void request_start_again(
	struct serve *serve, struct request *request, uint64_t received_ns, bool is_allowed)
{
	const struct shm_request *wire = &request->wire;
	uint64_t now = request->received_ns;

	serve->n_pending++;
	if (received_ns < now)
		request->received_ns = received_ns;
	if (wire->deadline_ns > 0 && wire->deadline_ns <= now)
		refuse(serve, request, -ETIMEDOUT, "deadline");
	else if (!is_allowed)
		refuse(serve, request, -EIO, "the daemon ended each time it had this request");
	else
		start(serve, request);
}
