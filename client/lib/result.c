/* SPDX-License-Identifier: Apache-2.0 */
#include "client.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <string.h>

#include "clock.h"

/* The daemon answers at the deadline; this long we wait for that answer before giving our own. */
#define GRACE_NS NS_PER_MS
/* Bells may pile up while answers come without them; the socket has room for some 200. */
#define MOST_UNHEARD 32u

static void push_ready(struct kamen_client *client, uint32_t i)
{
	client->slots[i].state = SLOT_READY;
	client->ready[(client->ready_head + client->n_ready++) % SHM_MAX_SLOTS] = i;
}

void answer_here(struct kamen_client *client, uint32_t i, int code, const char *reason)
{
	client->slots[i].own_code = code;
	client->slots[i].own_reason = reason;
	push_ready(client, i);
}

static int64_t n_completions(const struct kamen_client *client)
{
	return shm_ring_ready(
		&client->completions, &region_results(client->results)->completion_head);
}

int completions_take(struct kamen_client *client)
{
	int64_t n = n_completions(client);

	if (n < 0)
		return -EPROTO;
	client->n_taken += (uint32_t)n;
	client->n_unheard += (uint32_t)n;
	for (; n > 0; n--) {
		struct shm_completion completion;
		struct slot *slot;

		shm_ring_get(&client->completions, &completion);
		if (completion.slot >= client->n_slots)
			continue;
		slot = &client->slots[completion.slot];
		if (!slot->owed || slot->entry.id != completion.id)
			continue;
		slot->owed = false;
		if (slot->state != SLOT_IN_FLIGHT)
			continue;
		slot->results = region_ref(client->results);
		push_ready(client, completion.slot);
	}
	return 0;
}

/* When a slot that is in flight is answered here: without a daemon at once. */
static uint64_t patience_ns(const struct kamen_client *client, const struct slot *slot)
{
	if (slot->state != SLOT_IN_FLIGHT || slot->entry.deadline_ns == 0)
		return UINT64_MAX;
	return clock_after(slot->entry.deadline_ns, client->link == LINK_UP ? GRACE_NS : 0);
}

static uint64_t first_patience_ns(const struct kamen_client *client)
{
	uint64_t first = UINT64_MAX;

	for (uint32_t i = 0; i < client->n_slots; i++) {
		uint64_t until = patience_ns(client, &client->slots[i]);

		if (until < first)
			first = until;
	}
	return first;
}

int kamen_client_get_timeout(const struct kamen_client *client, uint64_t *ret_deadline_ns)
{
	uint64_t answer = first_patience_ns(client), link = link_timeout(client);

	*ret_deadline_ns = answer < link ? answer : link;
	/* kamen_wait() may have taken several for one that it gave: no bell comes for the rest. */
	if (client->n_ready > 0)
		*ret_deadline_ns = 0;
	return 0;
}

static void give_up_late(struct kamen_client *client)
{
	uint64_t now;

	if (first_patience_ns(client) == UINT64_MAX)
		return;
	now = clock_now_ns();
	for (uint32_t i = 0; i < client->n_slots; i++)
		if (patience_ns(client, &client->slots[i]) <= now)
			answer_here(client, i, -ETIMEDOUT,
				client->link == LINK_UP ? "deadline" : "the daemon is gone");
}

/* What lies in memory, without a look at the bells. */
static void answers_take(struct kamen_client *client)
{
	if (client->link == LINK_UP && completions_take(client) < 0)
		link_end(client, -EPROTO);
	give_up_late(client);
}

int kamen_process(struct kamen_client *client)
{
	int error, r, taken;

	if (client->link == LINK_UP) {
		r = bell_drain(client);
		/* Also of a daemon that has gone: what it answered before counts. */
		taken = completions_take(client);
		if (r == -EPROTO || taken < 0)
			link_end(client, -EPROTO);
		else if (r < 0)
			link_lose(client);
	}
	link_process(client);
	give_up_late(client);
	error = link_error(client);
	return client->n_ready == 0 && error < 0 ? error : (int)client->n_ready;
}

static void own_fill(const struct slot *slot, struct kamen_result *result)
{
	static const uint8_t no_space[32];

	*result = (struct kamen_result){
		.id = slot->entry.id,
		.code = slot->own_code,
		.verdict = KAMEN_NO_VERDICT,
		.reason = slot->own_reason,
		.label = "",
		.score = NAN,
		.unknown = NAN,
		.novelty = NAN,
		.distance = NAN,
		.trigger_id = slot->entry.trigger_id,
		.part_id = slot->entry.part_id,
		.capture_us = slot->entry.capture_us,
		.encoder = slot->entry.encoder,
		.deadline_ns = slot->entry.deadline_ns,
		.space = no_space,
	};
}

static void result_fill(
	const struct shm_result *from, struct slot *slot, struct kamen_result *result)
{
	/* Each once: it may change while we look. */
	uint32_t n = from->n_embedding, side = from->hardness_side, n_hardness = from->n_hardness;

	if (n > SHM_MAX_FEATURE)
		n = 0;
	if (side > SHM_MAX_HARDNESS_SIDE || n_hardness != side * side ||
		n + n_hardness > SHM_MAX_VALUES)
		side = 0;
	memcpy(slot->label, from->label, sizeof(slot->label) - 1);
	memcpy(slot->reason, from->reason, sizeof(slot->reason) - 1);
	*result = (struct kamen_result){
		.id = slot->entry.id,
		.code = from->code,
		.verdict = from->verdict <= SHM_UNKNOWN ? (enum kamen_verdict)from->verdict
							: KAMEN_NO_VERDICT,
		.reason = slot->reason,
		.label = slot->label,
		.score = from->score,
		.unknown = from->unknown,
		.novelty = from->novelty,
		.distance = from->distance,
		.version = from->version,
		.outcome = from->outcome,
		.queue_ns = from->queue_ns,
		.compute_ns = from->compute_ns,
		.trigger_id = from->trigger_id,
		.part_id = from->part_id,
		.capture_us = from->capture_us,
		.encoder = from->encoder,
		.deadline_ns = from->deadline_ns,
		.checksum = from->checksum,
		.space = from->space,
		.embedding = n > 0 ? from->values : NULL,
		.n_embedding = n,
		.hardness = side > 0 ? from->values + n : NULL,
		.n_hardness = side * side,
		.hardness_side = side,
	};
}

int kamen_next(struct kamen_client *client, struct kamen_result *ret_result)
{
	struct slot *slot;
	uint32_t i;

	if (client->n_ready == 0)
		return link_error(client);
	i = client->ready[client->ready_head];
	client->ready_head = (client->ready_head + 1) % SHM_MAX_SLOTS;
	client->n_ready--;
	slot = &client->slots[i];
	slot->state = SLOT_TAKEN;
	if (slot->own_code < 0)
		own_fill(slot, ret_result);
	else
		result_fill(region_result(slot->results, i), slot, ret_result);
	ret_result->slot = i;
	return 1;
}

/* Nothing in flight, and nothing to wait for before the caller can submit again. */
static bool is_idle(const struct kamen_client *client)
{
	bool is_owed = false, has_room = false;

	for (uint32_t i = 0; i < client->n_slots; i++) {
		const struct slot *slot = &client->slots[i];

		if (slot->state == SLOT_IN_FLIGHT)
			return false;
		has_room |= slot->state == SLOT_FREE && !slot->owed;
		is_owed |= slot->owed;
	}
	return has_room || !is_owed;
}

static void spin(struct kamen_client *client, uint64_t until)
{
	_Atomic uint32_t *awake = &region_frames(client->frames)->client_awake;

	if (client->link != LINK_UP)
		return;
	shm_awake_begin(awake);
	while (n_completions(client) == 0 && clock_now_ns() < until)
		;
	shm_awake_end(awake);
	/* What came before that has no bell, and the caller may poll() next. */
	answers_take(client);
}

static int sleep_until(const struct kamen_client *client, uint64_t now, uint64_t until)
{
	/* The socket itself, one step shorter than by way of the epoll; none (-1) is skipped. */
	struct pollfd poller = { .fd = client->sock, .events = POLLIN };
	uint64_t left = until > now ? until - now : 0;
	struct timespec ts = { (time_t)(left / NS_PER_S), (long)(left % NS_PER_S) };

	if (ppoll(&poller, 1, until == UINT64_MAX ? NULL : &ts, NULL) < 0)
		return -errno;
	return 0;
}

int kamen_wait(struct kamen_client *client, uint64_t timeout_ns, struct kamen_result *ret_result)
{
	uint64_t now = clock_now_ns(), until = clock_after(now, timeout_ns), wake;
	uint64_t spun = now + client->spin_ns;
	int r;

	/* No system call for an answer that is there, or comes soon. */
	answers_take(client);
	if (client->n_ready == 0 && client->spin_ns > 0 && !is_idle(client)) {
		(void)kamen_client_get_timeout(client, &wake);
		wake = wake < until ? wake : until;
		spin(client, spun < wake ? spun : wake);
	}
	for (;;) {
		if (client->n_ready == 0 || client->n_unheard >= MOST_UNHEARD)
			(void)kamen_process(client);
		r = kamen_next(client, ret_result);
		if (r != 0)
			return r < 0 ? r : 0;
		if (is_idle(client))
			return -EAGAIN;
		now = clock_now_ns();
		if (now >= until)
			return -ETIMEDOUT;
		(void)kamen_client_get_timeout(client, &wake);
		r = sleep_until(client, now, wake < until ? wake : until);
		if (r < 0)
			return r;
	}
}

void kamen_release(struct kamen_client *client, const struct kamen_result *result)
{
	if (result->slot < client->n_slots && client->slots[result->slot].state == SLOT_TAKEN)
		slot_free(&client->slots[result->slot]);
}
