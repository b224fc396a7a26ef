/* SPDX-License-Identifier: Apache-2.0 */
#include "region.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "cleanup.h"

static int region_map(struct region **ret_region, int fd, size_t n_bytes, int protection)
{
	struct region *region;
	struct stat st;
	void *at;

	/* The packet had one, for which this process has no room: that may pass. */
	if (fd < 0)
		return -EMFILE;
	/* Shorter than promised would be a SIGBUS later. */
	if (fstat(fd, &st) < 0 || st.st_size < 0 || (uint64_t)st.st_size < n_bytes)
		return -EPROTO;
	region = calloc(1, sizeof(*region));
	if (!region)
		return -ENOMEM;
	at = mmap(NULL, n_bytes, protection, MAP_SHARED, fd, 0);
	if (at == MAP_FAILED) {
		free(region);
		return -errno;
	}
	*region = (struct region){ .at = at, .n_bytes = n_bytes, .n_refs = 1 };
	*ret_region = region;
	return 0;
}

struct region *region_unref(struct region *region)
{
	if (!region || --region->n_refs > 0)
		return NULL;
	(void)munmap(region->at, region->n_bytes);
	free(region);
	return NULL;
}

int region_map_results(struct region **ret_region, int fd, uint32_t n_slots, uint64_t slot_bytes)
{
	_cleanup_(region_unrefp) struct region *region = NULL;
	const struct shm_results_header *header;
	int r;

	r = region_map(&region, fd, shm_results_bytes(n_slots), PROT_READ);
	if (r < 0)
		return r;
	header = region_results(region);
	if (header->magic != SHM_RESULTS_MAGIC || header->version != SHM_LAYOUT_VERSION ||
		header->n_slots != n_slots || header->slot_bytes != slot_bytes)
		return -EPROTO;
	region->n_slots = n_slots;
	region->slot_bytes = slot_bytes;
	*ret_region = TAKE_PTR(region);
	return 0;
}

int region_map_frames(struct region **ret_region, int fd, uint32_t n_slots, uint64_t slot_bytes)
{
	_cleanup_(region_unrefp) struct region *region = NULL;
	const struct shm_frames_header *header;
	int r;

	r = region_map(&region, fd, shm_frames_bytes(n_slots, slot_bytes), PROT_READ | PROT_WRITE);
	if (r < 0)
		return r;
	header = region_frames(region);
	if (header->magic != SHM_FRAMES_MAGIC || header->version != SHM_LAYOUT_VERSION ||
		header->n_slots != n_slots || header->slot_bytes != slot_bytes)
		return -EPROTO;
	region->n_slots = n_slots;
	region->slot_bytes = slot_bytes;
	*ret_region = TAKE_PTR(region);
	return 0;
}
