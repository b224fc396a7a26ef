/* SPDX-License-Identifier: Apache-2.0 */
/* Faults against the two memory regions: what is sealed must hold, what may be written may hold lies. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include "liar.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

static void must_not_map(struct liar *liar, int fd, size_t n_bytes)
{
	void *at = mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (at == MAP_FAILED)
		return;
	liar_breach(liar, "results were mapped for writing");
	(void)munmap(at, n_bytes);
}

static int reopen(int fd)
{
	char path[48];

	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, O_RDWR | O_CLOEXEC);
}

static void map_results_writable(struct liar *liar)
{
	struct peer *peer = liar_peer(liar);
	void *twin;
	int fd;

	if (!peer)
		return;
	must_not_map(liar, peer->results_fd, peer->results_bytes);
	fd = reopen(peer->results_fd);
	if (fd >= 0) {
		must_not_map(liar, fd, peer->results_bytes);
		if (pwrite(fd, "x", 1, 0) >= 0 || ftruncate(fd, 0) == 0)
			liar_breach(liar, "results were written through /proc");
		(void)close(fd);
	}
	if (mprotect(peer->results, peer->results_bytes, PROT_READ | PROT_WRITE) == 0)
		liar_breach(liar, "results became writable by mprotect");
	/* A second mapping of the same pages, out of the first. */
	twin = mremap(peer->results, 0, peer->results_bytes, MREMAP_MAYMOVE);
	if (twin != MAP_FAILED) {
		if (mprotect(twin, peer->results_bytes, PROT_READ | PROT_WRITE) == 0)
			liar_breach(liar, "a twin of results became writable");
		(void)munmap(twin, peer->results_bytes);
	}
}

static void write_results(struct liar *liar)
{
	struct peer *peer = liar_peer(liar);
	int fd = peer ? peer->results_fd : -1, mem;

	if (!peer)
		return;
	if (write(fd, "x", 1) >= 0 || pwrite(fd, "x", 1, 64) >= 0)
		liar_breach(liar, "results were written");
	if (ftruncate(fd, 0) == 0 || ftruncate(fd, (off_t)peer->results_bytes * 2) == 0)
		liar_breach(liar, "results changed their length");
	if (fallocate(fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, 0, 4096) == 0)
		liar_breach(liar, "a hole was punched into results");
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) == 0)
		liar_breach(liar, "a seal was added to results");
	if (sendfile(fd, peer->frames_fd, NULL, 4096) > 0)
		liar_breach(liar, "results were written by sendfile");
	if (madvise(peer->results, 4096, MADV_REMOVE) == 0)
		liar_breach(liar, "a page of results was removed");
	/* The kernel writes for a debugger where the page says no, but not into shared ones. */
	mem = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	if (mem >= 0 && pwrite(mem, "x", 1, (off_t)(uintptr_t)peer->results) > 0)
		liar_breach(liar, "results were written through /proc/self/mem");
	if (mem >= 0)
		(void)close(mem);
}

static void reshape_frames(struct liar *liar)
{
	struct peer *peer = liar_peer(liar);
	static const int seals[] = { F_SEAL_WRITE, F_SEAL_FUTURE_WRITE, F_SEAL_SEAL };

	if (!peer)
		return;
	if (ftruncate(peer->frames_fd, (off_t)liar_below(liar, peer->frames_bytes)) == 0 ||
		ftruncate(peer->frames_fd, (off_t)peer->frames_bytes * 4) == 0)
		liar_breach(liar, "frames changed their length");
	if (fcntl(peer->frames_fd, F_ADD_SEALS, seals[liar_below(liar, 3)]) == 0)
		liar_breach(liar, "a seal was added to frames");
}

static void punch(struct liar *liar, struct peer *peer)
{
	size_t from = shm_slots_offset(peer->n_slots);
	size_t n_pages = (peer->frames_bytes - from) / SHM_PAGE, first = liar_below(liar, n_pages);
	size_t at = from + first * SHM_PAGE, n = (1 + liar_below(liar, n_pages - first)) * SHM_PAGE;

	if (liar_below(liar, 2))
		(void)fallocate(peer->frames_fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE,
			(off_t)at, (off_t)n);
	else
		(void)madvise(peer->frames + at, n, MADV_REMOVE);
}

static void punch_holes(struct liar *liar)
{
	struct peer *peer = liar_peer(liar);
	int slot;

	for (int i = 0; peer && i < 4; i++) {
		struct shm_request request;

		slot = liar_slot(liar);
		if (slot < 0)
			return;
		request = liar_request(
			liar, liar_below(liar, 2) ? SHM_ECHO : SHM_INFER, slot, SHM_PAGE);
		request.format = liar_below(liar, 4) ? SHM_MONO8 : SHM_ENCODED;
		request.width = request.height = 64;
		punch(liar, peer);
		peer_submit(peer, &request);
		punch(liar, peer);
	}
	liar_settle(liar);
}

/* Header, cursor and ring go with the rest: what becomes of the session is its own affair. */
static void punch_everything(struct liar *liar)
{
	struct peer *peer = liar_peer(liar);
	struct shm_request request;
	int slot = peer ? liar_slot(liar) : -1;

	if (slot < 0)
		return;
	request = liar_request(liar, SHM_ECHO, slot, SHM_PAGE);
	peer_submit(peer, &request);
	(void)fallocate(peer->frames_fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, 0,
		(off_t)peer->frames_bytes);
	peer_ring(peer);
	peer->busy = 0;
	peer_close(peer);
}

static void scribble_headers(struct liar *liar)
{
	struct peer *peer = liar_peer(liar);
	struct shm_request request;
	int slot;

	if (!peer)
		return;
	liar_noise(liar, peer->frames, 64);
	liar_noise(liar, peer->frames + 68, shm_submissions_offset() - 68);
	slot = liar_slot(liar);
	if (slot < 0)
		return;
	request = liar_request(liar, SHM_ECHO, slot, 64);
	peer_submit(peer, &request);
	liar_settle(liar);
}

static void write_through_proc(struct liar *liar)
{
	struct peer *peer = liar_peer(liar);
	uint8_t noise[256];
	int fd;

	if (!peer)
		return;
	fd = reopen(peer->frames_fd);
	liar_noise(liar, noise, sizeof(noise));
	for (int i = 0; fd >= 0 && i < 8; i++)
		(void)!pwrite(fd, noise, sizeof(noise),
			(off_t)(shm_submissions_offset() + liar_below(liar, peer->frames_bytes)));
	if (fd >= 0)
		(void)close(fd);
	fd = reopen(peer->bell);
	if (fd >= 0)
		(void)close(fd);
	peer_ring(peer);
}

const struct fault region_faults[] = {
	{ "map-results-writable", 4, map_results_writable },
	{ "write-results", 4, write_results },
	{ "reshape-frames", 4, reshape_frames },
	{ "punch-holes", 6, punch_holes },
	{ "punch-everything", 3, punch_everything },
	{ "scribble-headers", 4, scribble_headers },
	{ "write-through-proc", 3, write_through_proc },
	{ 0 },
};
