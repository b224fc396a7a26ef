/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A checkpoint names base, instruction set and thread count, so no file of a corpus would fit
 * everywhere. An input therefore says how to damage one that is written here: a byte of flags, which
 * say the objective too, a length (u32) to cut it to, then (offset u32, value u8) as often as there are. All little-endian.
 */
#include <assert.h>
#include <endian.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/blob.h"
#include "fixture/tiny_vit.h"
#include "learn/round_state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

enum { MEND = 1, CUT = 2, OBJECTIVE_SHIFT = 2 };
static const enum recipe_objective objectives[] = { RECIPE_SWAV, RECIPE_HPM, RECIPE_MICM,
	RECIPE_MASKSUB };
#define N_OBJECTIVES ARRAY_SIZE(objectives)
#define N_IMAGES 8u
#define TRAILER_BYTES 8u

static const uint32_t labels[N_IMAGES] = { 0, 1, 0, 1, 0, 1, 0, 1 };

/** A round of few floats, one step into it, and its checkpoint; made once for each objective. */
struct bench {
	struct tiny_vit tiny;
	struct textures textures;
	struct image_source source;
	struct prep prep;
	struct recipe recipe;
	int fd;
	char path[32];
	uint8_t *saved;
	size_t n_saved;
};

static struct round *start(struct bench *bench)
{
	struct round *round = NULL;
	struct diag diag;
	int r = round_new(
		&round, bench->tiny.vit, &bench->recipe, &bench->prep, &bench->source, &diag);

	assert(r == 0);
	return round;
}

static void save(struct bench *bench)
{
	_cleanup_(round_freep) struct round *round = start(bench);
	char dir[] = "/tmp/kamen-fuzz-XXXXXX";
	struct round_progress progress;
	_cleanup_(closep) int dir_fd = -1;
	int r = mkdtemp(dir) ? round_step(round, &progress) : -1;

	dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (r >= 0)
		r = round_save(round, dir_fd, "round");
	if (r == 0)
		r = blob_read(dir_fd, "round", 1 << 24, (void **)&bench->saved, &bench->n_saved);
	(void)unlinkat(dir_fd, "round", 0);
	(void)rmdir(dir);
	assert(r == 0);
}

static void set_up(struct bench *bench, enum recipe_objective objective)
{
	const struct vit_shape shape = {
		.width = 8,
		.depth = 1,
		.n_heads = 1,
		.mlp = 8,
		.patch = 8,
		.grid = 2,
		.norm_eps = 1e-6f,
	};
	int r = tiny_vit_of_shape(&bench->tiny, &shape, 1);

	if (r == 0)
		r = textures_new(&bench->textures, N_IMAGES, 16, 2);
	assert(r == 0);
	bench->source = textures_source(&bench->textures);
	bench->source.labels = labels;
	bench->source.n_classes = 2;
	bench->prep = vit_native_prep(bench->tiny.vit);
	bench->recipe = recipe_for(bench->tiny.vit, &bench->prep, N_IMAGES, objective, 3);
	bench->recipe.batch = 2;
	if (objective == RECIPE_SWAV)
		bench->recipe.queue = 4;
	bench->recipe.hpm_width = 32;
	bench->recipe.hpm_depth = 1;
	bench->recipe.micm_hidden = 16;
	bench->fd = memfd_create("checkpoint", MFD_CLOEXEC);
	assert(bench->fd >= 0);
	(void)snprintf(bench->path, sizeof(bench->path), "/proc/self/fd/%d", bench->fd);
	save(bench);
}

static uint32_t get_u32(const uint8_t *p)
{
	uint32_t value;

	memcpy(&value, p, sizeof(value));
	return le32toh(value);
}

/* How long the damaged copy is. */
static size_t damage(uint8_t *copy, size_t n_copy, const uint8_t *data, size_t n_bytes)
{
	uint8_t flags = data[0];
	uint64_t sum;

	if (flags & CUT)
		n_copy = get_u32(data + 1) % (n_copy + 1);
	for (size_t i = 5; i + 5 <= n_bytes && n_copy > 0; i += 5)
		copy[get_u32(data + i) % n_copy] = data[i + 4];
	if (flags & MEND && n_copy >= TRAILER_BYTES) {
		sum = digest_checksum(copy, n_copy - TRAILER_BYTES);
		memcpy(copy + n_copy - TRAILER_BYTES, &sum, sizeof(sum));
	}
	return n_copy;
}

/* A round takes what it can go on from, or says why not. */
static void resume(struct bench *bench, bool is_whole)
{
	_cleanup_(round_freep) struct round *round = start(bench);
	struct round_progress progress;
	struct diag diag = { "" };
	int r = round_resume(round, AT_FDCWD, bench->path, &diag);

	if (r < 0) {
		assert(!is_whole && diag.text[0] && round->step == 0);
		return;
	}
	assert(round->step <= bench->recipe.steps);
	r = round_step(round, &progress);
	assert(r < 0 || progress.step <= progress.steps);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
	static struct bench benches[N_OBJECTIVES];
	_cleanup_(freep) uint8_t *copy = NULL;
	struct bench *bench;
	size_t which, n_copy;

	if (n_bytes < 5)
		return 0;
	which = (data[0] >> OBJECTIVE_SHIFT) % N_OBJECTIVES;
	bench = &benches[which];
	if (!bench->saved)
		set_up(bench, objectives[which]);
	copy = malloc(bench->n_saved);
	if (!copy)
		return 0;
	memcpy(copy, bench->saved, bench->n_saved);
	n_copy = damage(copy, bench->n_saved, data, n_bytes);
	if (ftruncate(bench->fd, 0) < 0 || pwrite(bench->fd, copy, n_copy, 0) != (ssize_t)n_copy)
		return 0;
	resume(bench, n_copy == bench->n_saved && memcmp(copy, bench->saved, n_copy) == 0);
	return 0;
}
