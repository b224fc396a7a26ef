/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include <omp.h>

#include "base/blob.h"
#include "learn/round_state.h"

#define MAGIC "KAMNRND4"

/**
 * A checkpoint is read by the machine that wrote it and lives only while its round runs: native
 * byte order, this header, the floats of the state, XXH3 of both.
 */
struct checkpoint {
	char magic[8];
	uint64_t n_state;
	struct digest base, recipe, prep, manifest;
	char isa[32];
	uint32_t n_threads;
	uint32_t step;
	uint32_t is_started;
	uint32_t reserved;
};

static struct checkpoint describe(const struct round *round)
{
	struct checkpoint checkpoint = {
		.magic = MAGIC,
		.n_state = round->n_state,
		.base = *vit_digest(round->vit),
		.recipe = recipe_digest(&round->recipe),
		.prep = prep_digest(&round->prep),
		.manifest = round->source.manifest,
		.n_threads = (uint32_t)omp_get_max_threads(),
		.step = round->step,
		.is_started = round->is_started,
	};

	(void)strncpy(checkpoint.isa, vit_isa(round->vit), sizeof(checkpoint.isa) - 1);
	return checkpoint;
}

static size_t file_bytes(const struct round *round)
{
	return sizeof(struct checkpoint) + round->n_state * sizeof(float) + sizeof(uint64_t);
}

int round_save(const struct round *round, int dir_fd, const char *path)
{
	struct checkpoint checkpoint = describe(round);
	size_t n_bytes = file_bytes(round), n_state = round->n_state * sizeof(float);
	_cleanup_(freep) char *data = malloc(n_bytes);
	uint64_t checksum;

	if (!data)
		return -ENOMEM;
	memcpy(data, &checkpoint, sizeof(checkpoint));
	memcpy(data + sizeof(checkpoint), round->state, n_state);
	checksum = digest_checksum(data, sizeof(checkpoint) + n_state);
	memcpy(data + sizeof(checkpoint) + n_state, &checksum, sizeof(checksum));
	return blob_write(dir_fd, path, data, n_bytes);
}

/* The first thing in which a checkpoint belongs to another round, or NULL. */
static const char *difference(const struct checkpoint *a, const struct checkpoint *b)
{
	if (!digest_equal(&a->base, &b->base))
		return "base";
	if (!digest_equal(&a->recipe, &b->recipe))
		return "recipe";
	if (!digest_equal(&a->prep, &b->prep))
		return "preprocessing";
	if (!digest_equal(&a->manifest, &b->manifest))
		return "manifest";
	if (memcmp(a->isa, b->isa, sizeof(a->isa)) != 0)
		return "instruction set";
	return a->n_threads != b->n_threads ? "number of threads" : NULL;
}

static int check(const struct round *round, const char *data, size_t n_bytes,
	struct checkpoint *ret_checkpoint, struct diag *diag)
{
	struct checkpoint own = describe(round), checkpoint;
	const char *other;
	uint64_t checksum;

	if (n_bytes < sizeof(checkpoint) + sizeof(checksum) || memcmp(data, MAGIC, 8) != 0)
		return diag_set(diag, EBADMSG, "checkpoint: not a checkpoint");
	memcpy(&checksum, data + n_bytes - sizeof(checksum), sizeof(checksum));
	if (checksum != digest_checksum(data, n_bytes - sizeof(checksum)))
		return diag_set(diag, EBADMSG, "checkpoint: checksum does not match");
	memcpy(&checkpoint, data, sizeof(checkpoint));
	other = difference(&checkpoint, &own);
	if (other)
		return diag_set(diag, ESTALE, "checkpoint: of another %s", other);
	if (checkpoint.n_state != round->n_state || n_bytes != file_bytes(round))
		return diag_set(diag, EBADMSG, "checkpoint: %zu bytes, not %zu", n_bytes,
			file_bytes(round));
	if (checkpoint.step > round->recipe.steps || checkpoint.is_started > 1)
		return diag_set(diag, EBADMSG, "checkpoint: step %u of %u", checkpoint.step,
			round->recipe.steps);
	*ret_checkpoint = checkpoint;
	return 0;
}

int round_resume(struct round *round, int dir_fd, const char *path, struct diag *diag)
{
	struct checkpoint checkpoint = { 0 };
	_cleanup_(freep) char *data = NULL;
	size_t n_bytes;
	int r;

	r = blob_read(dir_fd, path, file_bytes(round), (void **)&data, &n_bytes);
	if (r == -EFBIG || r == -EINVAL)
		return diag_set(diag, EBADMSG, "checkpoint: not a file of this round's size");
	if (r < 0)
		return diag_set(diag, -r, "checkpoint: %s", strerror(-r));
	r = check(round, data, n_bytes, &checkpoint, diag);
	if (r < 0)
		return r;
	memcpy(round->state, data + sizeof(checkpoint), round->n_state * sizeof(float));
	round->step = checkpoint.step;
	round->is_started = checkpoint.is_started;
	round->drive->resumed(round);
	return 0;
}
