/* SPDX-License-Identifier: Apache-2.0 */
#include "client.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define NS_PER_S UINT64_C(1000000000)
#define SPIN_NS 20000u
/* The daemon answers at the deadline; this long we wait for that answer before giving our own. */
#define GRACE_NS 5000000u

static uint64_t now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static void push_ready(struct kamen_client *client, uint32_t i)
{
	client->slots[i].state = SLOT_READY;
	client->ready[(client->ready_head + client->n_ready++) % SHM_MAX_SLOTS] = i;
}

/* Bytes that say "look": how many does not matter. Before the cursor is read, never after. */
static void drain_doorbells(struct kamen_client *client)
{
	char bytes[64];
	ssize_t n;

	do
		n = recv(client->sock, bytes, sizeof(bytes), MSG_DONTWAIT);
	while (n > 0);
	if (n == 0 || (errno != EAGAIN && errno != EINTR))
		client->gone = true;
}

static void take_completions(struct kamen_client *client)
{
	int64_t n = shm_ring_ready(&client->completions, &client->results->completion_head);

	if (n < 0)
		client->gone = true;
	for (; n > 0; n--) {
		struct shm_completion completion;
		struct slot *slot;

		shm_ring_get(&client->completions, &completion);
		if (completion.slot >= client->n_slots)
			continue;
		slot = &client->slots[completion.slot];
		if (!slot->owed || slot->id != completion.id)
			continue;
		slot->owed = false;
		if (slot->state == SLOT_IN_FLIGHT)
			push_ready(client, completion.slot);
	}
}

static uint64_t patience_ns(const struct slot *slot)
{
	if (slot->state != SLOT_IN_FLIGHT || slot->deadline_ns == 0 ||
		slot->deadline_ns > UINT64_MAX - GRACE_NS)
		return UINT64_MAX;
	return slot->deadline_ns + GRACE_NS;
}

int kamen_client_get_timeout(const struct kamen_client *client, uint64_t *ret_deadline_ns)
{
	uint64_t first = UINT64_MAX;

	for (uint32_t i = 0; i < client->n_slots; i++) {
		uint64_t until = patience_ns(&client->slots[i]);

		if (until < first)
			first = until;
	}
	*ret_deadline_ns = first;
	return 0;
}

static void give_up_late(struct kamen_client *client)
{
	uint64_t first, now;

	(void)kamen_client_get_timeout(client, &first);
	if (first == UINT64_MAX)
		return;
	now = now_ns();
	for (uint32_t i = 0; i < client->n_slots; i++) {
		if (patience_ns(&client->slots[i]) > now)
			continue;
		client->slots[i].late = true;
		push_ready(client, i);
	}
}

int kamen_process(struct kamen_client *client)
{
	if (!client->gone) {
		drain_doorbells(client);
		take_completions(client);
		give_up_late(client);
	}
	return client->n_ready == 0 && client->gone ? -ENOTCONN : (int)client->n_ready;
}

static void late_fill(const struct slot *slot, struct kamen_result *result)
{
	static const uint8_t no_space[32];

	*result = (struct kamen_result){
		.id = slot->id,
		.code = -ETIMEDOUT,
		.verdict = KAMEN_NO_VERDICT,
		.reason = "deadline",
		.label = "",
		.score = NAN,
		.novelty = NAN,
		.distance = NAN,
		.trigger_id = slot->trigger_id,
		.part_id = slot->part_id,
		.capture_us = slot->capture_us,
		.encoder = slot->encoder,
		.space = no_space,
	};
}

static void result_fill(
	const struct shm_result *from, struct slot *slot, struct kamen_result *result)
{
	uint32_t n = from->n_embedding;

	memcpy(slot->label, from->label, sizeof(slot->label) - 1);
	memcpy(slot->reason, from->reason, sizeof(slot->reason) - 1);
	*result = (struct kamen_result){
		.id = slot->id,
		.code = from->code,
		.verdict = from->verdict <= SHM_UNKNOWN ? (enum kamen_verdict)from->verdict
							: KAMEN_NO_VERDICT,
		.reason = slot->reason,
		.label = slot->label,
		.score = from->score,
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
		.checksum = from->checksum,
		.space = from->space,
		.n_embedding = n <= SHM_MAX_EMBEDDING ? n : 0,
	};
	result->embedding = result->n_embedding ? from->embedding : NULL;
}

int kamen_next(struct kamen_client *client, struct kamen_result *ret_result)
{
	const struct shm_result *results;
	struct slot *slot;
	uint32_t i;

	if (client->n_ready == 0)
		return client->gone ? -ENOTCONN : 0;
	i = client->ready[client->ready_head];
	client->ready_head = (client->ready_head + 1) % SHM_MAX_SLOTS;
	client->n_ready--;
	slot = &client->slots[i];
	slot->state = SLOT_TAKEN;
	results = (const void *)((const uint8_t *)client->results +
				 shm_results_offset(client->n_slots));
	if (slot->late)
		late_fill(slot, ret_result);
	else
		result_fill(&results[i], slot, ret_result);
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

static void spin(const struct kamen_client *client, uint64_t until)
{
	while (shm_ring_ready(&client->completions, &client->results->completion_head) == 0 &&
		now_ns() < until)
		;
}

static int sleep_until(const struct kamen_client *client, uint64_t now, uint64_t until)
{
	struct pollfd poller = { .fd = client->sock, .events = POLLIN };
	uint64_t left = until > now ? until - now : 0;
	struct timespec ts = { (time_t)(left / NS_PER_S), (long)(left % NS_PER_S) };

	if (ppoll(&poller, 1, until == UINT64_MAX ? NULL : &ts, NULL) < 0)
		return -errno;
	return 0;
}

int kamen_wait(struct kamen_client *client, uint64_t timeout_ns, struct kamen_result *ret_result)
{
	uint64_t now = now_ns(), until, wake;
	bool spun = !client->may_spin;
	int r;

	until = timeout_ns > UINT64_MAX - now ? UINT64_MAX : now + timeout_ns;
	for (;;) {
		(void)kamen_process(client);
		r = kamen_next(client, ret_result);
		if (r != 0)
			return r < 0 ? r : 0;
		if (is_idle(client))
			return -EAGAIN;
		now = now_ns();
		if (now >= until)
			return -ETIMEDOUT;
		if (!spun) {
			spun = true;
			spin(client, now + SPIN_NS < until ? now + SPIN_NS : until);
			continue;
		}
		(void)kamen_client_get_timeout(client, &wake);
		r = sleep_until(client, now, wake < until ? wake : until);
		if (r < 0)
			return r;
	}
}

void kamen_release(struct kamen_client *client, const struct kamen_result *result)
{
	if (result->slot < client->n_slots && client->slots[result->slot].state == SLOT_TAKEN)
		client->slots[result->slot].state = SLOT_FREE;
}
