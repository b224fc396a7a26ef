/* SPDX-License-Identifier: Apache-2.0 */
/* Requests that lie, that are too many, and that carry images which are none. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "fixture/flaw.h"
#include "image/image.h"
#include "liar.h"

static uint64_t extreme(struct liar *liar, uint64_t near)
{
	const uint64_t values[] = { 0, 1, 2, 3, near, near + 1, near - 1, near * 2, INT32_MAX,
		(uint64_t)INT32_MAX + 1, UINT32_MAX, (uint64_t)UINT32_MAX + 1, INT64_MAX,
		UINT64_MAX, liar_random(liar) };

	return values[liar_below(liar, sizeof(values) / sizeof(values[0]))];
}

static struct shm_request plausible(struct liar *liar, int slot)
{
	struct shm_request request = liar_request(liar, SHM_INFER, slot, 3072);

	request.format = SHM_RGB8;
	request.width = request.height = 32;
	return request;
}

static void spoil_a_field(struct liar *liar, struct shm_request *request)
{
	switch (liar_below(liar, 11)) {
	case 0:
		request->n_bytes = extreme(liar, liar->peer.slot_bytes);
		break;
	case 1:
		request->stride = (uint32_t)extreme(liar, 96);
		break;
	case 2:
		request->format = (uint32_t)extreme(liar, SHM_BGR8);
		break;
	case 3:
		request->width = (uint32_t)extreme(liar, 32);
		break;
	case 4:
		request->height = (uint32_t)extreme(liar, 32);
		break;
	case 5:
		request->px = (uint32_t)extreme(liar, 32);
		break;
	case 6:
		request->mask = (uint32_t)extreme(liar, 1);
		break;
	case 7:
		request->version = (uint32_t)extreme(liar, 1);
		break;
	case 8:
		request->verb = (uint32_t)extreme(liar, SHM_PUSH);
		break;
	case 9:
		request->flags = (uint32_t)extreme(liar, SHM_WANT_SPACE);
		break;
	default:
		liar_noise(liar, request->reserved, sizeof(request->reserved));
		break;
	}
}

/* Requests that are right but for what spoil() does to them. */
static void submit_spoilt(struct liar *liar, unsigned n,
	void (*spoil)(struct liar *liar, struct shm_request *request))
{
	struct peer *peer = liar_peer(liar);

	for (unsigned i = 0; peer && i < n; i++) {
		int slot = liar_slot(liar);
		struct shm_request request;

		if (slot < 0)
			return;
		request = plausible(liar, slot);
		spoil(liar, &request);
		peer_submit(peer, &request);
	}
	liar_settle(liar);
}

static void spoil_fields(struct liar *liar, struct shm_request *request)
{
	for (uint64_t n = liar_below(liar, 3) + 1; n > 0; n--)
		spoil_a_field(liar, request);
}

static void lie_about_fields(struct liar *liar)
{
	submit_spoilt(liar, 12, spoil_fields);
}

static void spoil_sizes(struct liar *liar, struct shm_request *request)
{
	request->verb = liar_below(liar, 3) ? SHM_INFER : SHM_PUSH;
	request->format = 1 + (uint32_t)liar_below(liar, 3);
	request->width = (uint32_t)extreme(liar, 64);
	request->height = (uint32_t)extreme(liar, 64);
	request->stride = (uint32_t)extreme(liar, (uint64_t)request->width * 3);
	request->n_bytes = extreme(liar, (uint64_t)request->stride * request->height);
}

static void lie_about_sizes(struct liar *liar)
{
	submit_spoilt(liar, 12, spoil_sizes);
}

static void spoil_site(struct liar *liar, struct shm_request *request)
{
	static const char *const names[] = { "", "../../etc/passwd", "nobody", "LIAR", "liar\nliar",
		"%s%n%x", "honest ", "." };

	if (liar_below(liar, 2))
		liar_noise(liar, request->site, sizeof(request->site));
	else
		peer_name_site(request, names[liar_below(liar, 8)]);
}

static void lie_about_sites(struct liar *liar)
{
	submit_spoilt(liar, 8, spoil_site);
}

static void spoil_deadline(struct liar *liar, struct shm_request *request)
{
	request->deadline_ns = liar_below(liar, 2) ? extreme(liar, clock_now_ns())
						   : clock_now_ns() + liar_below(liar, 2000000);
}

static void lie_about_time(struct liar *liar)
{
	submit_spoilt(liar, 8, spoil_deadline);
}

/* ---- images */

static size_t make_png(struct liar *liar, uint8_t *to, size_t n_max)
{
	uint8_t pixels[FLAW_SIDE * FLAW_SIDE * 3];
	const struct image_view view = { pixels, FLAW_SIDE, FLAW_SIDE, 3, (size_t)FLAW_SIDE * 3 };
	void *png = NULL;
	size_t n = 0;

	flaw_render(pixels, (uint32_t)liar_below(liar, 8));
	if (image_encode_png(&view, &png, &n) < 0)
		return 0;
	n = n < n_max ? n : n_max;
	memcpy(to, png, n);
	free(png);
	return n;
}

/* Headers that promise much; what follows is noise. */
static size_t make_promise(struct liar *liar, uint8_t *to)
{
	static const char *const headers[] = { "P5 70000 70000 255\n", "P6 8192 8192 255\n",
		"P6 1 1 65535\n", "P5 4294967297 1 255\n", "P6 -1 -1 255\n", "P5 1 1 255",
		"P6 8192 4096 255\n", "P5 # comment\n 3 3 255\n" };
	const char *header = headers[liar_below(liar, 8)];
	size_t n = strlen(header);

	memcpy(to, header, n);
	liar_noise(liar, to + n, 512);
	return n + liar_below(liar, 512);
}

/* A PNG that says it is huge, with a body of nothing; a JPEG that stops in its header. */
static size_t make_bomb(struct liar *liar, uint8_t *to, size_t n_max)
{
	static const uint8_t jpeg[] = { 0xff, 0xd8, 0xff, 0xe0, 0, 16, 'J', 'F', 'I', 'F', 0, 1, 1,
		0, 0, 1, 0, 1, 0, 0, 0xff, 0xc0, 0, 17, 8, 0xff, 0xff, 0xff, 0xff, 3, 1, 0x22, 0, 2,
		0x11, 1, 3, 0x11, 1 };
	size_t n;

	if (liar_below(liar, 2)) {
		memcpy(to, jpeg, sizeof(jpeg));
		liar_noise(liar, to + sizeof(jpeg), 256);
		return sizeof(jpeg) + liar_below(liar, 256);
	}
	n = make_png(liar, to, n_max);
	if (n > 24)
		liar_noise(liar, to + 16, 8);
	return n;
}

static size_t make_bad_image(struct liar *liar, uint8_t *to, size_t n_max)
{
	size_t n;

	switch (liar_below(liar, 5)) {
	case 0:
		liar_noise(liar, to, 2048);
		return 1 + liar_below(liar, 2048);
	case 1:
		return make_promise(liar, to);
	case 2:
		return make_bomb(liar, to, n_max);
	case 3:
		n = make_png(liar, to, n_max);
		return n > 0 ? liar_below(liar, n) + 1 : 1;
	default:
		n = make_png(liar, to, n_max);
		for (uint64_t i = liar_below(liar, 8) + 1; n > 8 && i > 0; i--)
			to[8 + liar_below(liar, n - 8)] ^= (uint8_t)(1 + liar_below(liar, 255));
		return n > 0 ? n : 1;
	}
}

static void send_bad_images(struct liar *liar)
{
	struct peer *peer = liar_peer(liar);

	for (int i = 0; peer && i < 4; i++) {
		int slot = liar_slot(liar);
		struct shm_request request;

		if (slot < 0)
			return;
		request = liar_request(liar, liar_below(liar, 3) ? SHM_INFER : SHM_PUSH, slot, 0);
		peer_name_site(&request, "liar");
		request.n_bytes =
			make_bad_image(liar, peer_slot(peer, (uint32_t)slot), peer->slot_bytes);
		peer_submit(peer, &request);
	}
	liar_settle(liar);
}

static void push_what_is_right(struct liar *liar)
{
	struct peer *peer = liar_peer(liar);
	int slot = peer ? liar_slot(liar) : -1;
	struct shm_request request;

	if (slot < 0)
		return;
	request = liar_request(liar, SHM_PUSH, slot, 0);
	peer_name_site(&request, "liar");
	request.n_bytes = make_png(liar, peer_slot(peer, (uint32_t)slot), peer->slot_bytes);
	peer_submit(peer, &request);
	liar_settle(liar);
}

/* ---- floods */

/* As many as it has slots, over and over, without a look at the bells. */
static void flood(struct liar *liar, uint32_t verb, uint64_t n_bytes, unsigned rounds)
{
	struct peer *peer = liar_peer(liar);

	for (unsigned round = 0; peer && round < rounds; round++) {
		int slot;

		while ((slot = peer_free_slot(peer)) >= 0) {
			struct shm_request request = liar_request(liar, verb, slot,
				n_bytes < peer->slot_bytes ? n_bytes : peer->slot_bytes);

			request.format = SHM_MONO8;
			request.width = request.height = 32;
			peer_put(peer, &request);
		}
		peer_publish(peer);
		peer_ring(peer);
		if (peer_drain(peer) < 0)
			peer_close(peer);
		if (!peer_is_open(peer))
			return;
	}
}

static void flood_small(struct liar *liar)
{
	flood(liar, SHM_ECHO, 64, 200);
	liar_settle(liar);
}

static void flood_large(struct liar *liar)
{
	flood(liar, SHM_ECHO, UINT64_MAX, 3);
	liar_settle(liar);
}

static void flood_infer(struct liar *liar)
{
	flood(liar, SHM_INFER, 1024, 5);
	liar_settle(liar);
}

static void flood_encoded(struct liar *liar)
{
	struct peer *peer = liar_peer(liar);
	int slot;

	while (peer && (slot = peer_free_slot(peer)) >= 0) {
		struct shm_request request = liar_request(liar, SHM_INFER, slot, peer->slot_bytes);

		if (liar_below(liar, 2))
			request.n_bytes =
				make_png(liar, peer_slot(peer, (uint32_t)slot), peer->slot_bytes);
		peer_put(peer, &request);
	}
	if (!peer)
		return;
	peer_publish(peer);
	peer_ring(peer);
	liar_settle(liar);
}

static void flood_and_leave(struct liar *liar)
{
	flood(liar, liar_below(liar, 2) ? SHM_INFER : SHM_ECHO, 1024, 1);
	peer_close(&liar->peer);
}

/* Asks, and never reads bells nor answers for a while. */
static void stall(struct liar *liar)
{
	struct peer *peer = liar_peer(liar);

	if (!peer)
		return;
	flood(liar, SHM_INFER, 1024, 1);
	(void)nanosleep(&(const struct timespec){ 0, (long)liar_below(liar, 10000000) }, NULL);
	if (liar_below(liar, 2))
		liar_settle(liar);
	else
		peer_close(&liar->peer);
}

const struct fault request_faults[] = {
	{ "lie-about-fields", 10, lie_about_fields },
	{ "lie-about-sizes", 10, lie_about_sizes },
	{ "lie-about-sites", 4, lie_about_sites },
	{ "lie-about-time", 4, lie_about_time },
	{ "send-bad-images", 10, send_bad_images },
	{ "push-what-is-right", 1, push_what_is_right },
	{ "flood-small", 4, flood_small },
	{ "flood-large", 2, flood_large },
	{ "flood-infer", 4, flood_infer },
	{ "flood-encoded", 1, flood_encoded },
	{ "flood-and-leave", 3, flood_and_leave },
	{ "stall", 3, stall },
	{ 0 },
};
