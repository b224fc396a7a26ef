/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_CLIENT_REGION_H
#define KAMEN_CLIENT_REGION_H

#include <stddef.h>
#include <stdint.h>

#include "shm_layout.h"

/**
 * One mapping of a session's memory. Counted: whoever holds a frame or a result of it, the caller's
 * pointers stay good although the session has ended or has got another one.
 */
struct region {
	uint8_t *at;
	size_t n_bytes;
	uint32_t n_slots; /* by which things lie in it */
	uint64_t slot_bytes;
	uint32_t n_refs;
};

/**
 * Maps regions that a daemon passed, after a look at whether file and header are what was said.
 *
 * @return 0, -EPROTO: they are not, or what mmap() said. The descriptor stays the caller's.
 */
int region_map_results(struct region **ret_region, int fd, uint32_t n_slots, uint64_t slot_bytes);
int region_map_frames(struct region **ret_region, int fd, uint32_t n_slots, uint64_t slot_bytes);

static inline struct region *region_ref(struct region *region)
{
	region->n_refs++;
	return region;
}

/** NULL is fine. Returns NULL. */
struct region *region_unref(struct region *region);

static inline void region_unrefp(struct region **region)
{
	(void)region_unref(*region);
}

/** Only read by us: the mapping is without PROT_WRITE. */
static inline const struct shm_results_header *region_results(const struct region *region)
{
	return (const void *)region->at;
}

static inline struct shm_frames_header *region_frames(const struct region *region)
{
	return (void *)region->at;
}

static inline const struct shm_result *region_result(const struct region *region, uint32_t slot)
{
	return (const struct shm_result *)(region->at + shm_results_offset(region->n_slots)) + slot;
}

static inline uint8_t *region_frame(const struct region *region, uint32_t slot)
{
	return region->at + shm_slot_offset(region->n_slots, region->slot_bytes, slot);
}

#endif
