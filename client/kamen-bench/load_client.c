/* SPDX-License-Identifier: Apache-2.0 */
#include "load_client.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "schedule.h"

#define PATIENCE_NS UINT64_C(30000000000)

static uint32_t site_draw(struct load_client *c)
{
	double u = rng_u32(&c->rng) / 4294967296.0;
	uint32_t i = 0;

	while (i + 1 < c->load->n_sites && c->cdf[i] < u)
		i++;
	return i;
}

static void complain(struct load_result *result, const char *why)
{
	if (!*result->why)
		(void)snprintf(result->why, sizeof(result->why), "%s", why);
}

/* ---- one request */

/* Numbers that an answer of another request cannot have. */
static struct kamen_request request_of(const struct load_client *c, const struct flight *flight)
{
	const uint32_t px = c->load->px;
	struct kamen_request request = { .size = sizeof(request),
		.verb = KAMEN_INFER,
		.format = KAMEN_RGB8,
		.site = c->load->sites[flight->site],
		.n_bytes = 3 * (size_t)px * px,
		.width = px,
		.height = px,
		.trigger_id = flight->number,
		.part_id = ~flight->number,
		.capture_us = flight->due_ns / 1000,
		.encoder = flight->number * 4096 + c->index };

	if (c->load->deadline_ns)
		request.deadline_ns = flight->due_ns + c->load->deadline_ns;
	if (c->load->versions) {
		request.mask = KAMEN_MASK_VERSION;
		request.version = c->load->versions[flight->site];
	}
	return request;
}

static bool echoes(const struct kamen_request *request, const struct load_answer *answer)
{
	return answer->trigger_id == request->trigger_id && answer->part_id == request->part_id &&
	       answer->capture_us == request->capture_us && answer->encoder == request->encoder &&
	       answer->deadline_ns == request->deadline_ns;
}

/* -EBUSY: no place is free. */
static int request_submit(struct load_client *c, uint32_t site, uint64_t due_ns)
{
	struct flight flight = {
		.is_up = true,
		.number = c->n_sent,
		.due_ns = due_ns,
		.sent_ns = bench_now_ns(),
		.site = site,
	};
	struct kamen_request request = request_of(c, &flight);
	uint32_t at;
	int r = c->load->transport->submit(
		c->connection, &request, (int)(rng_u32(&c->rng) & 255), &at, &flight.id);

	if (r < 0)
		return r;
	c->flights[at] = flight;
	c->n_up++;
	c->n_sent++;
	return 0;
}

static int answer_measure(
	struct load_client *c, const struct flight *flight, const struct load_answer *answer)
{
	struct load_result *result = &c->result;
	uint64_t now = bench_now_ns();
	int r = 0;

	if (c->load->deadline_ns)
		r = samples_add(&result->late_ms,
			((double)(now - flight->due_ns) - (double)c->load->deadline_ns) * 1e-6);
	if (r < 0 || answer->code < 0 || flight->due_ns < c->measured_from_ns)
		return r;
	r = samples_add(&result->of_site[flight->site], (double)(now - flight->due_ns) * 1e-6);
	if (r == 0)
		r = samples_add(&result->compute, (double)answer->compute_ns * 1e-6);
	if (r == 0)
		r = samples_add(&result->overhead,
			((double)(now - flight->sent_ns) - (double)answer->compute_ns) * 1e-6);
	return r;
}

static int answer_take(struct load_client *c, const struct load_answer *answer)
{
	struct flight *flight = &c->flights[answer->at];
	struct load_result *result = &c->result;
	struct kamen_request request;

	/* A place is not taken again before its answer: another id was answered already. */
	if (!flight->is_up || flight->id != answer->id) {
		result->doubled++;
		return 0;
	}
	flight->is_up = false;
	c->n_up--;
	request = request_of(c, flight);
	if (!echoes(&request, answer) ||
		(answer->code < 0 && (answer->has_verdict || !*answer->reason)))
		result->wrong++;
	if (answer->code < 0) {
		result->refused++;
		complain(result, *answer->reason ? answer->reason : strerror(-answer->code));
	} else {
		result->completed++;
	}
	return answer_measure(c, flight, answer);
}

/* Waits no longer than that. 0: one was taken, -EAGAIN: nothing is in flight, -ETIMEDOUT. */
static int answer_wait(struct load_client *c, uint64_t timeout_ns)
{
	struct load_answer answer;
	int r = c->load->transport->wait(c->connection, timeout_ns, &answer);

	return r < 0 ? r : answer_take(c, &answer);
}

/* ---- all of them */

static int lose(struct load_client *c, int r)
{
	c->result.lost += c->n_up;
	complain(&c->result, strerror(-r));
	c->n_up = 0;
	return r;
}

static int rest_wait(struct load_client *c)
{
	int r = 0;

	while (c->n_up > 0 && r == 0)
		r = answer_wait(c, PATIENCE_NS);
	return r < 0 ? lose(c, r) : 0;
}

static int closed_loop(struct load_client *c, uint64_t end)
{
	uint64_t now = bench_now_ns();
	int r = 0;

	while (r == 0 && now < end) {
		while (r == 0 && c->n_up < c->load->depth)
			r = request_submit(c, site_draw(c), bench_now_ns());
		if (r == 0 || r == -EBUSY)
			r = answer_wait(c, PATIENCE_NS);
		r = r == -EAGAIN ? 0 : r;
		now = bench_now_ns();
	}
	return r < 0 ? lose(c, r) : rest_wait(c);
}

/* Until the next is due, or while no place is free, answers are taken. */
static int open_wait(struct load_client *c, uint64_t due)
{
	uint64_t now = bench_now_ns();
	int r;

	if (now < due)
		r = answer_wait(c, due - now);
	else
		r = answer_wait(c, PATIENCE_NS);
	if (r == -EAGAIN && now < due)
		bench_sleep_until(due);
	return r == -EAGAIN || (r == -ETIMEDOUT && now < due) ? 0 : r;
}

static int open_loop(struct load_client *c, uint64_t begin, uint64_t end)
{
	const struct schedule schedule = {
		.begin_ns = begin,
		.rate = c->load->rate,
		.index = c->index,
		.n_clients = c->load->n_clients,
	};
	uint64_t i = 0, due = schedule_due(&schedule, 0);
	int r = 0;

	while (r == 0 && due < end) {
		if (bench_now_ns() >= due) {
			r = request_submit(c, site_draw(c), due);
			if (r == 0) {
				due = schedule_due(&schedule, ++i);
				continue;
			}
			if (r != -EBUSY)
				break;
		}
		r = open_wait(c, due);
	}
	return r < 0 ? lose(c, r) : rest_wait(c);
}

int load_client_work(struct load_client *c, uint64_t begin)
{
	const uint64_t n_ns = (uint64_t)(c->load->seconds * 1e9);
	int r;

	c->measured_from_ns = begin + n_ns / 10;
	r = c->load->rate > 0 ? open_loop(c, begin, begin + n_ns) : closed_loop(c, begin + n_ns);
	c->result.seconds = (double)(bench_now_ns() - begin) * 1e-9;
	return r;
}

int load_client_warm_up(struct load_client *c)
{
	struct load load = *c->load;
	const struct load *whole = c->load;
	int r = 0;

	/* No deadline: the first forward of a size takes its time. */
	load.deadline_ns = 0;
	c->load = &load;
	c->measured_from_ns = UINT64_MAX;
	/* The clients share the sites, but each asks once. */
	for (uint32_t i = c->index % load.n_sites; i < load.n_sites && r == 0;
		i += load.n_clients) {
		r = request_submit(c, i, bench_now_ns());
		if (r == 0)
			r = rest_wait(c);
	}
	c->load = whole;
	if (r == 0 && c->result.refused)
		r = -EPROTO;
	c->result.completed = 0;
	return r;
}
