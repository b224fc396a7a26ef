/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_PROTO_SHM_LAYOUT_H
#define KAMEN_PROTO_SHM_LAYOUT_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The two shared regions of a session, little-endian, no pointers, no locks. The daemon makes both
 * as memfds and passes them with a doorbell eventfd in its Welcome.
 *
 *   results  daemon writes, client reads (sealed SHRINK, GROW, FUTURE_WRITE, SEAL)
 *            [shm_results_header][completions: n_slots x shm_completion][n_slots x shm_result]
 *   frames   client writes, daemon maps read-only (sealed SHRINK, GROW, SEAL)
 *            [shm_frames_header][submissions: n_slots x shm_request][n_slots x slot_bytes]
 *
 * Slot i of frames and slot i of results belong together: a request names its slot, its answer
 * comes in the same one. Cursors run free (uint32, wrap is fine); n_slots is a power of two. Either
 * side treats the other's cursor and every descriptor as a lie until a copy of it was checked.
 *
 * Doorbells: client to daemon, write 1 to the eventfd after publishing submissions; daemon to
 * client, one byte on the socket after publishing completions. HUP of the socket ends the session.
 * Who looks at the other's cursor meanwhile says so in its own header, and is not rung for: a hint
 * that is a lie costs the liar its bells and nobody else anything.
 */
#define SHM_RESULTS_MAGIC UINT64_C(0x32734e454d414b01) /* layout 2 */
#define SHM_FRAMES_MAGIC UINT64_C(0x32664e454d414b01)
#define SHM_LAYOUT_VERSION 2u
#define SHM_MAX_SLOTS 64u
#define SHM_MAX_SLOT_BYTES (64u << 20)
#define SHM_MAX_VALUES 4096u
#define SHM_MAX_EMBEDDING 1280u
/* Class token and attended patches, which classes are told apart by. */
#define SHM_MAX_FEATURE (2 * SHM_MAX_EMBEDDING)
/* Of the hardness map: with the largest embedding its square still fits the values. */
#define SHM_MAX_HARDNESS_SIDE 53u
#define SHM_SITE_CHARS 64u /* with the NUL */
#define SHM_LABEL_CHARS 64u
#define SHM_REASON_CHARS 160u
#define SHM_PAGE 4096u

enum shm_verb { SHM_ECHO = 1, SHM_INFER = 2, SHM_PUSH = 3 };
enum shm_format { SHM_ENCODED = 0, SHM_RGB8 = 1, SHM_MONO8 = 2, SHM_BGR8 = 3 };
enum shm_mask { SHM_MASK_CHAMPION = 0, SHM_MASK_VERSION = 1 /* version 0 is the base */ };
enum shm_flags {
	SHM_WANT_EMBEDDING = 1,
	SHM_WANT_SPACE = 2,    /* answer -ESTALE in any other space */
	SHM_WANT_HARDNESS = 4, /* answer -ENODATA where the version has no hardness map */
	SHM_WANT_FEATURE = 8   /* in the embedding's place; without a hardness map */
};
enum shm_verdict { SHM_NO_VERDICT = 0, SHM_OK = 1, SHM_NG = 2, SHM_UNKNOWN = 3 };
#define SHM_PX_SITE 0u
#define SHM_PX_NATIVE UINT32_MAX /* the model's own size and preprocessing */

struct shm_request {
	uint64_t id;                                       /* the client's, echoed */
	uint64_t deadline_ns;                              /* absolute CLOCK_MONOTONIC, 0: none */
	uint64_t n_bytes;                                  /* in the slot */
	uint64_t trigger_id, part_id, capture_us, encoder; /* echoed */
	uint32_t verb, slot, format, flags;
	uint32_t width, height, stride, px;
	uint32_t mask, version;
	uint32_t reserved[4];
	uint8_t space[32];
	char site[SHM_SITE_CHARS];
};

struct shm_result {
	uint64_t id;
	uint64_t trigger_id, part_id, capture_us, encoder;
	uint64_t queue_ns, compute_ns;
	int32_t code; /* 0 or a negative errno; the reason says more */
	uint32_t verdict;
	uint32_t version; /* mask that answered, 0: the base */
	uint32_t n_embedding;
	float novelty;     /* [0, 1], NaN: no reference */
	float distance;    /* mean cosine distance to the nearest references, NaN: none */
	float score;       /* confidence in the label, NaN: there is none */
	uint32_t outcome;  /* PUSH: 0 accepted, 1 duplicate, 2 rejected */
	uint64_t checksum; /* ECHO: XXH3 of what was read; else 0 */
	uint8_t space[32];
	char label[SHM_LABEL_CHARS];
	char reason[SHM_REASON_CHARS];
	uint64_t deadline_ns; /* of the request, as are id to encoder */
	uint32_t n_hardness;  /* hardness_side squared, 0: not asked for */
	uint32_t hardness_side;
	float unknown; /* [0, 1], beyond .5 of none of the classes, NaN: not known */
	uint32_t reserved[3];
	/* (n_embedding), as the model gives it, or the feature, two halves of length 1 (of a cascade
	 * its embedding); then (n_hardness), rows from top to bottom */
	float values[SHM_MAX_VALUES];
};

struct shm_completion {
	uint32_t slot;
	uint32_t reserved;
	uint64_t id;
};

struct shm_results_header {
	uint64_t magic;
	uint32_t version, n_slots;
	uint64_t slot_bytes;
	_Alignas(64) _Atomic uint32_t completion_head; /* written by the daemon */
	_Alignas(64) _Atomic uint32_t submission_tail; /* how far the daemon has read */
	_Atomic uint32_t daemon_awake;                 /* not 0: it looks, no doorbell is needed */
	_Alignas(64) uint8_t pad[64];
};

struct shm_frames_header {
	uint64_t magic;
	uint32_t version, n_slots;
	uint64_t slot_bytes;
	_Alignas(64) _Atomic uint32_t submission_head; /* written by the client */
	_Atomic uint32_t client_awake;                 /* not 0: it looks, no bell is needed */
	_Alignas(64) uint8_t pad[64];
};

_Static_assert(sizeof(struct shm_request) == 208, "layout 2");
_Static_assert(offsetof(struct shm_request, verb) == 56, "layout 2");
_Static_assert(offsetof(struct shm_request, space) == 112, "layout 2");
_Static_assert(offsetof(struct shm_request, site) == 144, "layout 2");
_Static_assert(offsetof(struct shm_result, code) == 56, "layout 2");
_Static_assert(offsetof(struct shm_result, checksum) == 88, "layout 2");
_Static_assert(offsetof(struct shm_result, space) == 96, "layout 2");
_Static_assert(offsetof(struct shm_result, label) == 128, "layout 2");
_Static_assert(offsetof(struct shm_result, deadline_ns) == 352, "layout 2");
_Static_assert(offsetof(struct shm_result, n_hardness) == 360, "layout 2");
_Static_assert(offsetof(struct shm_result, unknown) == 368, "layout 2");
_Static_assert(offsetof(struct shm_result, values) == 384, "layout 2");
_Static_assert(sizeof(struct shm_result) == 16768, "layout 2");
_Static_assert(SHM_MAX_EMBEDDING + SHM_MAX_HARDNESS_SIDE * SHM_MAX_HARDNESS_SIDE <= SHM_MAX_VALUES,
	"both fit");
_Static_assert(SHM_MAX_FEATURE <= SHM_MAX_VALUES, "a feature fits");
_Static_assert(sizeof(struct shm_completion) == 16, "layout 2");
_Static_assert(offsetof(struct shm_results_header, daemon_awake) == 132, "layout 2");
_Static_assert(offsetof(struct shm_frames_header, client_awake) == 68, "layout 2");
_Static_assert(sizeof(struct shm_results_header) == 256, "layout 2");
_Static_assert(sizeof(struct shm_frames_header) == 192, "layout 2");

/* Of raw pixels. */
static inline uint32_t shm_n_channels(uint32_t format)
{
	return format == SHM_MONO8 ? 1 : 3;
}

/** What is wrong with raw pixels of that extent in n_bytes; NULL: nothing. stride 0: dense rows. */
static inline const char *shm_pixels_wrong(
	uint32_t format, uint32_t width, uint32_t height, uint32_t stride, uint64_t n_bytes)
{
	uint64_t row = (uint64_t)width * shm_n_channels(format);

	if (width == 0 || height == 0)
		return "an image has at least one pixel";
	if (stride > 0 && stride < row)
		return "stride is shorter than a row";
	/* Divided, because a product of what anybody says may not fit. */
	if (n_bytes < row || (n_bytes - row) / (stride > 0 ? stride : row) < height - 1)
		return "n_bytes is less than the rows take";
	return NULL;
}

static inline size_t shm_page_round(size_t n)
{
	return (n + SHM_PAGE - 1) & ~(size_t)(SHM_PAGE - 1);
}

static inline size_t shm_completions_offset(void)
{
	return sizeof(struct shm_results_header);
}
static inline size_t shm_results_offset(uint32_t n_slots)
{
	return shm_page_round(shm_completions_offset() + n_slots * sizeof(struct shm_completion));
}
static inline size_t shm_results_bytes(uint32_t n_slots)
{
	return shm_page_round(shm_results_offset(n_slots) + n_slots * sizeof(struct shm_result));
}

static inline size_t shm_submissions_offset(void)
{
	return sizeof(struct shm_frames_header);
}
static inline size_t shm_slots_offset(uint32_t n_slots)
{
	return shm_page_round(shm_submissions_offset() + n_slots * sizeof(struct shm_request));
}
/* Frame slots begin on pages of their own. */
static inline size_t shm_slot_offset(uint32_t n_slots, uint64_t slot_bytes, uint32_t slot)
{
	return shm_slots_offset(n_slots) + (size_t)slot * shm_page_round(slot_bytes);
}
static inline size_t shm_frames_bytes(uint32_t n_slots, uint64_t slot_bytes)
{
	return shm_slot_offset(n_slots, slot_bytes, n_slots);
}

#endif
