/* SPDX-License-Identifier: Apache-2.0 */
#include "client.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "wire.h"

#define KNOWN_FLAGS \
	(KAMEN_WANT_EMBEDDING | KAMEN_WANT_SPACE | KAMEN_WANT_HARDNESS | KAMEN_WANT_FEATURE)

_Static_assert(
	(int)KAMEN_ECHO == SHM_ECHO && (int)KAMEN_INFER == SHM_INFER &&
		(int)KAMEN_PUSH == SHM_PUSH && (int)KAMEN_ENCODED == SHM_ENCODED &&
		(int)KAMEN_RGB8 == SHM_RGB8 && (int)KAMEN_MONO8 == SHM_MONO8 &&
		(int)KAMEN_BGR8 == SHM_BGR8 && (int)KAMEN_MASK_CHAMPION == SHM_MASK_CHAMPION &&
		(int)KAMEN_MASK_VERSION == SHM_MASK_VERSION &&
		KAMEN_WANT_EMBEDDING == SHM_WANT_EMBEDDING && KAMEN_WANT_SPACE == SHM_WANT_SPACE &&
		KAMEN_WANT_HARDNESS == SHM_WANT_HARDNESS &&
		KAMEN_WANT_FEATURE == SHM_WANT_FEATURE && KAMEN_PX_NATIVE == SHM_PX_NATIVE,
	"the public numbers are those of the layout");

void slot_free(struct slot *slot)
{
	slot->frames = region_unref(slot->frames);
	slot->results = region_unref(slot->results);
	slot->state = SLOT_FREE;
}

int kamen_frame_acquire(struct kamen_client *client, size_t n_bytes, struct kamen_frame *ret_frame)
{
	int r = link_error(client);

	/* A program that only submits and waits looks for the daemon here. */
	if (r < 0) {
		link_process(client);
		r = link_error(client);
	}
	if (r < 0)
		return r;
	if (n_bytes > client->slot_bytes)
		return -EFBIG;
	for (uint32_t i = 0; i < client->n_slots; i++) {
		struct slot *slot = &client->slots[i];

		if (slot->state != SLOT_FREE || slot->owed)
			continue;
		slot->state = SLOT_ACQUIRED;
		slot->frames = region_ref(client->frames);
		*ret_frame = (struct kamen_frame){
			.data = region_frame(client->frames, i),
			.capacity = client->slot_bytes,
			.slot = i,
		};
		return 0;
	}
	return -EBUSY;
}

static struct slot *acquired(struct kamen_client *client, const struct kamen_frame *frame)
{
	if (frame->slot >= client->n_slots || client->slots[frame->slot].state != SLOT_ACQUIRED)
		return NULL;
	return &client->slots[frame->slot];
}

void kamen_frame_discard(struct kamen_client *client, const struct kamen_frame *frame)
{
	struct slot *slot = acquired(client, frame);

	if (slot)
		slot_free(slot);
}

static bool request_holds(const struct kamen_client *client, const struct kamen_request *q)
{
	if (q->n_bytes == 0 || q->n_bytes > client->slot_bytes || q->flags & ~KNOWN_FLAGS)
		return false;
	if (q->flags & KAMEN_WANT_FEATURE && q->flags & KAMEN_WANT_HARDNESS)
		return false;
	if (q->mask != KAMEN_MASK_CHAMPION && q->mask != KAMEN_MASK_VERSION)
		return false;
	if (q->verb == KAMEN_ECHO)
		return true;
	if (q->verb != KAMEN_INFER && q->verb != KAMEN_PUSH)
		return false;
	if (wire_site_name_check(q->site) < 0)
		return false;
	if (q->format == KAMEN_ENCODED)
		return true;
	return (q->format == KAMEN_RGB8 || q->format == KAMEN_BGR8 || q->format == KAMEN_MONO8) &&
	       !shm_pixels_wrong((uint32_t)q->format, q->width, q->height, q->stride, q->n_bytes);
}

static void entry_fill(
	struct shm_request *entry, const struct kamen_request *q, uint32_t slot, uint64_t id)
{
	*entry = (struct shm_request){
		.id = id,
		.deadline_ns = q->deadline_ns,
		.n_bytes = q->n_bytes,
		.trigger_id = q->trigger_id,
		.part_id = q->part_id,
		.capture_us = q->capture_us,
		.encoder = q->encoder,
		.verb = (uint32_t)q->verb,
		.slot = slot,
		.format = (uint32_t)q->format,
		.flags = q->flags,
		.width = q->width,
		.height = q->height,
		.stride = q->stride,
		.px = q->px,
		.mask = (uint32_t)q->mask,
		.version = q->version,
	};
	memcpy(entry->space, q->space, sizeof(entry->space));
	if (q->verb != KAMEN_ECHO)
		memcpy(entry->site, q->site, strlen(q->site)); /* checked: its NUL fits too */
}

/* A frame that was filled before the daemon went lies where only we see it. */
static void frame_move(struct kamen_client *client, uint32_t i)
{
	struct slot *slot = &client->slots[i];

	if (slot->frames == client->frames)
		return;
	memcpy(region_frame(client->frames, i), region_frame(slot->frames, i), slot->entry.n_bytes);
	(void)region_unref(slot->frames);
	slot->frames = region_ref(client->frames);
}

int submit_entry(struct kamen_client *client, uint32_t i)
{
	struct slot *slot = &client->slots[i];

	/* As many entries as slots: full means that the daemon's cursor makes no sense. */
	if (!shm_ring_has_room(
		    &client->submissions, &region_results(client->results)->submission_tail))
		return -EPROTO;
	frame_move(client, i);
	slot->owed = true;
	slot->n_sent++;
	shm_ring_put(&client->submissions, &slot->entry);
	return 0;
}

void submit_publish(struct kamen_client *client)
{
	const uint64_t one = 1;

	/* The daemon never reads the counter, it only wakes: a full one has woken it already. */
	if (shm_ring_announce(&client->submissions, &region_frames(client->frames)->submission_head,
		    &region_results(client->results)->daemon_awake))
		(void)!write(client->doorbell, &one, sizeof(one));
}

int kamen_submit(struct kamen_client *client, const struct kamen_frame *frame,
	const struct kamen_request *request, uint64_t *ret_id)
{
	struct slot *slot = acquired(client, frame);
	int r = link_error(client);

	if (r < 0)
		return r;
	if (!slot || request->size < sizeof(*request) || !request_holds(client, request))
		return -EINVAL;
	entry_fill(&slot->entry, request, frame->slot, client->next_id + 1);
	slot->n_sent = 0;
	slot->own_code = 0;
	/* While there is no daemon it waits for the next one. */
	if (client->link == LINK_UP) {
		r = submit_entry(client, frame->slot);
		if (r < 0) {
			link_end(client, r);
			return r;
		}
		submit_publish(client);
	}
	slot->state = SLOT_IN_FLIGHT;
	client->next_id++;
	if (ret_id)
		*ret_id = slot->entry.id;
	return 0;
}
