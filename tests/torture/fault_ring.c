/* SPDX-License-Identifier: Apache-2.0 */
/* Faults against the rings, the cursors and the doorbell. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "liar.h"

/* The cursor was a lie: whatever becomes of this session, another fault wants another one. */
static void give_up_session(struct liar *liar)
{
	liar->peer.busy = 0;
	peer_close(&liar->peer);
}

static void lie_about_head(struct liar *liar)
{
	struct peer *peer = liar_peer(liar);
	static const int32_t steps[] = { -1, -2, 65, 1000, INT32_MAX, INT32_MIN };

	if (!peer)
		return;
	atomic_store(peer_head(peer), liar_below(liar, 3) == 0
					      ? (uint32_t)liar_random(liar)
					      : peer->head + (uint32_t)steps[liar_below(liar, 6)]);
	peer_ring(peer);
	give_up_session(liar);
}

static void publish_garbage(struct liar *liar)
{
	struct peer *peer = liar_peer(liar);
	uint32_t n;

	if (!peer)
		return;
	n = 1 + (uint32_t)liar_below(liar, peer->n_slots);
	liar_settle(liar);
	if (!peer_is_open(peer))
		return;
	for (uint32_t i = 0; i < n; i++)
		liar_noise(liar, peer_entry(peer, peer->head + i), sizeof(struct shm_request));
	peer->head += n;
	peer_publish(peer);
	peer_ring(peer);
	give_up_session(liar);
}

/* Entries whose every field is noise but for those that would end the session at once. */
static void publish_likely_garbage(struct liar *liar)
{
	struct peer *peer = liar_peer(liar);
	int slot;

	for (int i = 0; peer && i < 8; i++) {
		struct shm_request request;

		slot = liar_slot(liar);
		if (slot < 0)
			return;
		liar_noise(liar, &request, sizeof(request));
		request.slot = (uint32_t)slot;
		request.verb = (uint32_t)liar_below(liar, 5);
		request.n_bytes &= liar_below(liar, 2) ? 0xfff : UINT64_MAX;
		if (liar_below(liar, 2))
			peer_name_site(&request, "liar");
		peer_submit(peer, &request);
	}
	liar_settle(liar);
}

static void take_a_slot_twice(struct liar *liar)
{
	struct peer *peer = liar_peer(liar);
	int slot = peer ? liar_slot(liar) : -1;
	struct shm_request request;

	if (slot < 0)
		return;
	request = liar_request(liar, SHM_INFER, slot, 3072);
	request.format = SHM_RGB8;
	request.width = request.height = 32;
	peer_put(peer, &request);
	if (peer->n_slots > 1)
		peer_put(peer, &request);
	peer_publish(peer);
	peer_ring(peer);
	if (peer->n_slots > 1)
		give_up_session(liar);
	else
		liar_settle(liar);
}

static void name_no_slot(struct liar *liar)
{
	struct peer *peer = liar_peer(liar);
	struct shm_request request;

	if (!peer)
		return;
	request = liar_request(liar, SHM_ECHO, 0, 64);
	request.slot = peer->n_slots + (uint32_t)liar_below(liar, UINT32_MAX - peer->n_slots);
	peer_submit(peer, &request);
	give_up_session(liar);
}

/* Over entries, pixels and the cursor, while the daemon reads them. */
static void scribble(struct liar *liar)
{
	struct peer *peer = liar_peer(liar);
	bool spoil_ring = liar_below(liar, 3) == 0;
	uint64_t until;

	if (!peer)
		return;
	for (uint32_t i = 0; i < peer->n_slots && i < 8; i++) {
		struct shm_request request;
		int slot = peer_free_slot(peer);

		if (slot < 0)
			break;
		request =
			liar_request(liar, liar_below(liar, 2) ? SHM_INFER : SHM_ECHO, slot, 4096);
		request.format = liar_below(liar, 4) ? SHM_MONO8 : SHM_ENCODED;
		request.width = request.height = 64;
		peer_put(peer, &request);
	}
	peer_publish(peer);
	peer_ring(peer);
	until = clock_now_ns() + 20000 + liar_below(liar, 400000);
	while (clock_now_ns() < until) {
		size_t from = shm_slots_offset(peer->n_slots);

		liar_noise(liar,
			peer->frames + from + liar_below(liar, peer->frames_bytes - from - 4095),
			4096);
		if (spoil_ring)
			liar_noise(liar, peer_entry(peer, (uint32_t)liar_random(liar)),
				sizeof(struct shm_request));
	}
	if (spoil_ring)
		give_up_session(liar);
	else
		liar_settle(liar);
}

static void flip_the_head(struct liar *liar)
{
	struct peer *peer = liar_peer(liar);
	uint64_t until = clock_now_ns() + 10000 + liar_below(liar, 200000);

	if (!peer)
		return;
	while (clock_now_ns() < until) {
		atomic_store(peer_head(peer), peer->head + (uint32_t)liar_below(liar, 3) * 77);
		peer_ring(peer);
		atomic_store(peer_head(peer), peer->head);
	}
	give_up_session(liar);
}

/* The entries of long ago once more, ids and all. */
static void replay_old_ids(struct liar *liar)
{
	struct peer *peer = liar_peer(liar);
	uint32_t n;

	if (!peer)
		return;
	liar_settle(liar);
	if (!peer_is_open(peer))
		return;
	n = 1 + (uint32_t)liar_below(liar, peer->n_slots);
	for (uint32_t i = 0; i < n; i++) {
		struct shm_request *entry = peer_entry(peer, peer->head + i);

		entry->slot = i;
		entry->id = liar_below(liar, peer->next_id + 1);
		peer->busy |= UINT64_C(1) << i;
	}
	peer->head += n;
	peer_publish(peer);
	peer_ring(peer);
	liar_settle(liar);
}

/* A session of before, through mappings and a doorbell that outlive it. */
static void replay_old_session(struct liar *liar)
{
	struct peer old = { .sock = -1 }, *peer = liar_peer(liar);
	struct shm_request request;
	int slot;

	if (!peer)
		return;
	old = *peer;
	old.bell = dup(peer->bell);
	old.frames = mmap(
		NULL, old.frames_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, peer->frames_fd, 0);
	peer_close(peer);
	peer = liar_peer(liar);
	if (old.frames != MAP_FAILED) {
		request = liar_request(liar, SHM_ECHO, 0, 64);
		for (int i = 0; i < 16; i++)
			peer_submit(&old, &request);
		(void)munmap(old.frames, old.frames_bytes);
	}
	slot = peer ? liar_slot(liar) : -1;
	if (slot >= 0) {
		request = liar_request(liar, SHM_ECHO, slot, 64);
		peer_submit(peer, &request);
		/* One descriptor more that rings for nobody. */
		(void)!write(old.bell, "\1\0\0\0\0\0\0", 8);
		liar_settle(liar);
	}
	if (old.bell >= 0)
		(void)close(old.bell);
}

/* The description is shared with the daemon: whoever reads or writes it there would be held. */
static void fill_the_doorbell(struct liar *liar)
{
	struct peer *peer = liar_peer(liar);
	const uint64_t most = UINT64_MAX - 1;
	struct shm_request request;
	int slot, flags;

	if (!peer)
		return;
	/* Left waiting by a fault before, it would hold this one. */
	flags = fcntl(peer->bell, F_GETFL) | O_NONBLOCK;
	(void)fcntl(peer->bell, F_SETFL, flags);
	(void)!write(peer->bell, &most, sizeof(most));
	if (liar_below(liar, 2))
		(void)fcntl(peer->bell, F_SETFL, flags & ~O_NONBLOCK);
	slot = liar_slot(liar);
	if (slot < 0)
		return;
	request = liar_request(liar, SHM_ECHO, slot, 64);
	peer_put(peer, &request);
	peer_publish(peer);
	/* Full: only who drains it can ring again. */
	(void)fcntl(peer->bell, F_SETFL, flags);
	(void)!read(peer->bell, &(uint64_t){ 0 }, 8);
	peer_ring(peer);
	liar_settle(liar);
	if (peer_is_open(peer) && liar_below(liar, 2))
		(void)fcntl(peer->bell, F_SETFL, flags & ~O_NONBLOCK);
}

static void ring_for_nothing(struct liar *liar)
{
	struct peer *peer = liar_peer(liar);
	uint64_t n = liar_below(liar, 2000);

	for (uint64_t i = 0; peer && i < n; i++)
		peer_ring(peer);
}

static void steal_the_bell(struct liar *liar)
{
	struct peer *peer = liar_peer(liar);
	uint64_t count;
	struct shm_request request;
	int slot = peer ? liar_slot(liar) : -1;

	if (slot < 0)
		return;
	request = liar_request(liar, SHM_ECHO, slot, 64);
	(void)fcntl(peer->bell, F_SETFL, O_NONBLOCK);
	peer_submit(peer, &request);
	(void)!read(peer->bell, &count, sizeof(count));
	/* The edge may have gone with it; a ring more is what an honest one would do. */
	peer_ring(peer);
	liar_settle(liar);
}

const struct fault ring_faults[] = {
	{ "lie-about-head", 3, lie_about_head },
	{ "publish-garbage", 3, publish_garbage },
	{ "publish-likely-garbage", 8, publish_likely_garbage },
	{ "take-a-slot-twice", 2, take_a_slot_twice },
	{ "name-no-slot", 2, name_no_slot },
	{ "scribble", 8, scribble },
	{ "flip-the-head", 2, flip_the_head },
	{ "replay-old-ids", 5, replay_old_ids },
	{ "replay-old-session", 3, replay_old_session },
	{ "fill-the-doorbell", 5, fill_the_doorbell },
	{ "ring-for-nothing", 3, ring_for_nothing },
	{ "steal-the-bell", 3, steal_the_bell },
	{ 0 },
};
