/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include <omp.h>

#include "base/blob.h"
#include "learn/cascade_state.h"

#define MAGIC "KAMNEXP1"
#define SUM_BYTES sizeof(uint64_t)

/**
 * Like a round's checkpoint for the machine that wrote it: native byte order, this header, the words
 * of each learnt mask, XXH3 of all before.
 */
struct saved {
	char magic[8];
	struct digest of; /* all that the experts depend on */
	uint32_t n_learnt, reserved;
};

static struct saved describe(const struct cascade *cascade)
{
	const struct cascade_share *learnt = &cascade->learnt, *held = &cascade->held;
	const struct digest recipe = recipe_digest(&cascade->recipe);
	const struct digest prep = prep_digest(&cascade->prep);
	const struct digest mask = mask_digest(cascade->masks[0]);
	const uint32_t counts[] = { cascade->options.n_experts, cascade->options.n_route,
		(uint32_t)omp_get_max_threads(), held->source.n };
	const char *isa = vit_isa(cascade->vit);
	struct saved saved = { .magic = MAGIC, .n_learnt = cascade_first_missing(cascade) };
	struct digest_state state;

	digest_init(&state);
	digest_update(&state, vit_digest(cascade->vit), sizeof(struct digest));
	digest_update(&state, &recipe, sizeof(recipe));
	digest_update(&state, &prep, sizeof(prep));
	digest_update(&state, &mask, sizeof(mask));
	digest_update(&state, counts, sizeof(counts));
	digest_update(&state, isa, strlen(isa) + 1);
	digest_update(&state, cascade->scores,
		vit_layout(cascade->vit)->n_elements * sizeof(*cascade->scores));
	digest_update(&state, learnt->order, learnt->source.n * sizeof(*learnt->order));
	digest_update(&state, learnt->first, sizeof(learnt->first));
	digest_update(&state, &learnt->source.manifest, sizeof(struct digest));
	if (held->order) {
		digest_update(&state, held->order, held->source.n * sizeof(*held->order));
		digest_update(&state, held->first, sizeof(held->first));
	}
	saved.of = digest_final(&state);
	return saved;
}

static size_t mask_bytes(const struct cascade *cascade)
{
	return vit_layout(cascade->vit)->n_words * sizeof(uint64_t);
}

static int save_masks(const struct cascade *cascade, int dir_fd, const char *path)
{
	const struct saved saved = describe(cascade);
	size_t n_mask = mask_bytes(cascade), n = sizeof(saved) + saved.n_learnt * n_mask;
	_cleanup_(freep) char *data = malloc(n + SUM_BYTES);
	uint64_t sum;

	if (!data)
		return -ENOMEM;
	memcpy(data, &saved, sizeof(saved));
	for (uint32_t i = 0; i < saved.n_learnt; i++)
		memcpy(data + sizeof(saved) + i * n_mask, cascade->masks[1 + i]->words, n_mask);
	sum = digest_checksum(data, n);
	memcpy(data + n, &sum, sizeof(sum));
	return blob_write(dir_fd, path, data, n + SUM_BYTES);
}

int cascade_save(const struct cascade *cascade, int dir_fd, const char *path)
{
	char name[64];
	int r = save_masks(cascade, dir_fd, path);

	if (r < 0 || !cascade_is_learning(cascade))
		return r;
	(void)snprintf(name, sizeof(name), "%s.best", path);
	if (cascade->stop)
		r = early_stop_save(cascade->stop, dir_fd, name);
	(void)snprintf(name, sizeof(name), "%s.round", path);
	return r < 0 ? r : round_save(cascade->round, dir_fd, name);
}

static int check(const struct cascade *cascade, const char *data, size_t n_bytes,
	struct saved *ret_saved, struct diag *diag)
{
	const struct saved own = describe(cascade);
	struct saved saved;
	uint64_t sum;

	if (n_bytes < sizeof(saved) + sizeof(sum) || memcmp(data, MAGIC, 8) != 0)
		return diag_set(diag, EBADMSG, "experts: not a file of experts");
	memcpy(&sum, data + n_bytes - sizeof(sum), sizeof(sum));
	if (sum != digest_checksum(data, n_bytes - sizeof(sum)))
		return diag_set(diag, EBADMSG, "experts: checksum does not match");
	memcpy(&saved, data, sizeof(saved));
	if (!digest_equal(&saved.of, &own.of))
		return diag_set(diag, ESTALE, "experts: of another dispatcher or its images");
	if (saved.n_learnt > cascade->options.n_experts ||
		n_bytes != sizeof(saved) + saved.n_learnt * mask_bytes(cascade) + sizeof(sum))
		return diag_set(
			diag, EBADMSG, "experts: %u of them in %zu bytes", saved.n_learnt, n_bytes);
	*ret_saved = saved;
	return 0;
}

static int take_masks(struct cascade *cascade, const char *data, uint32_t n_learnt)
{
	for (uint32_t i = 0; i < n_learnt; i++) {
		struct mask **mask = &cascade->masks[1 + i];
		int r = mask_new(mask, vit_layout(cascade->vit));

		if (r < 0)
			return r;
		memcpy((*mask)->words, data + i * mask_bytes(cascade), mask_bytes(cascade));
		mask_count(*mask);
	}
	return 0;
}

/* What does not fit was another expert's: this one then begins at its first step. */
static int resume_round(struct cascade *cascade, int dir_fd, const char *path)
{
	uint32_t expert = cascade_first_missing(cascade);
	char name[64];
	int r;

	if (expert == cascade->options.n_experts ||
		cascade_n_images(cascade, expert) < CASCADE_MIN_IMAGES)
		return 0;
	r = cascade_begin(cascade, expert, NULL);
	if (r < 0)
		return r;
	(void)snprintf(name, sizeof(name), "%s.round", path);
	r = round_resume(cascade->round, dir_fd, name, NULL);
	(void)snprintf(name, sizeof(name), "%s.best", path);
	if (r >= 0 && cascade->stop)
		r = early_stop_resume(cascade->stop, dir_fd, name, NULL);
	if (r < 0)
		cascade_drop_round(cascade);
	return 0;
}

int cascade_resume(struct cascade *cascade, int dir_fd, const char *path, struct diag *diag)
{
	size_t most = sizeof(struct saved) + CASCADE_MAX_EXPERTS * mask_bytes(cascade) + SUM_BYTES;
	_cleanup_(freep) void *data = NULL;
	struct saved saved = { .n_learnt = 0 };
	size_t n_bytes;
	int r;

	if (cascade->round || cascade_first_missing(cascade) > 0)
		return -EBUSY;
	r = blob_read(dir_fd, path, most, &data, &n_bytes);
	if (r == -EFBIG || r == -EINVAL)
		return diag_set(diag, EBADMSG, "experts: not a file of this model's size");
	if (r == 0)
		r = check(cascade, data, n_bytes, &saved, diag);
	if (r == 0)
		r = take_masks(cascade, (const char *)data + sizeof(saved), saved.n_learnt);
	return r < 0 ? r : resume_round(cascade, dir_fd, path);
}
