/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "base/blob.h"
#include "learn/early_stop.h"
#include "learn/objective.h"

#define MAGIC "KAMNBST4"
#define N_LOOKS 10u   /* a round, if bits flipped from its first step on */
#define N_IMAGES 128u /* a look takes about half a step's time */
#define N_DRAWS 1u
#define N_WORSE 3u /* looks in succession surely below the frozen model: it does not come back */

/** What is saved, followed by the words of the mask and a checksum of both. */
struct kept {
	char magic[8];
	struct digest base, recipe, prep, manifest;
	uint64_t n_words;
	uint32_t looked; /* step of the last look */
	uint32_t n_worse;
	uint32_t is_sound; /* the best one */
	uint32_t reserved;
	struct early_stop_best best;
};

struct early_stop {
	struct vit *vit;
	struct slot *slot;
	struct recipe recipe;
	struct prep prep;
	struct image_source held;
	const struct mask *from; /* what is to be beaten; NULL: the base */
	struct early_stop_limits limits;
	struct judgement frozen; /* of it; n 0: not judged yet */
	struct judge_image frozen_images[N_IMAGES], images[N_IMAGES];
	struct mask *mask; /* the best so far */
	struct kept kept;
};

int early_stop_new(struct early_stop **ret_stop, struct vit *vit, const struct recipe *recipe,
	const struct prep *prep, const struct image_source *held, const struct mask *from,
	const struct early_stop_limits *limits)
{
	_cleanup_(early_stop_freep) struct early_stop *stop = calloc(1, sizeof(*stop));
	int r;

	if (!stop)
		return -ENOMEM;
	stop->vit = vit;
	stop->recipe = *recipe;
	stop->prep = *prep;
	stop->held = *held;
	stop->from = from;
	stop->limits = *limits;
	stop->kept = (struct kept){
		.magic = MAGIC,
		.base = *vit_digest(vit),
		.recipe = recipe_digest(recipe),
		.prep = prep_digest(prep),
		.manifest = held->manifest,
		.n_words = vit_layout(vit)->n_words,
	};
	r = mask_new(&stop->mask, vit_layout(vit));
	if (r == 0)
		r = vit_slot_new(&stop->slot, vit, SLOT_INFER);
	if (r < 0)
		return r;
	*ret_stop = TAKE_PTR(stop);
	return 0;
}

void early_stop_free(struct early_stop *stop)
{
	if (!stop)
		return;
	slot_free(stop->slot);
	mask_free(stop->mask);
	free(stop);
}

static int judge(struct early_stop *stop, const struct mask *mask, struct judgement *ret_judgement,
	struct judge_image *images)
{
	const struct judge_effort effort = { N_IMAGES, N_DRAWS };
	int r = slot_apply(stop->slot, mask);

	if (r < 0)
		return r;
	return judge_some(ret_judgement, images, stop->vit, stop->slot, &stop->recipe, &stop->prep,
		&stop->held, effort);
}

static void keep(struct early_stop *stop, const struct round_progress *progress,
	const struct judgement *judgement, const struct mask *mask)
{
	stop->kept.best = (struct early_stop_best){ *progress, *judgement };
	mask_copy(stop->mask, mask);
}

/* Whether its decoder learns on beside the mask, and is asked for maps with the one that is kept. */
static bool serves_maps(const struct early_stop *stop)
{
	return objective_kind(stop->recipe.objective)->hardness;
}

/* How dense a top-k mask is was asked for. */
static bool has_crashed(const struct early_stop *stop, const struct round_progress *progress)
{
	if (stop->recipe.mask == RECIPE_TOPK)
		return false;
	return !(progress->density >= stop->limits.density) ||
	       !(progress->lowest_density >= stop->limits.lowest_density);
}

/* Whether nothing can be expected of what is left of the round. A decoder of maps learns with any mask
 * that is a network still. */
static int conclude(
	const struct early_stop *stop, const struct round_progress *progress, struct diag *diag)
{
	if (has_crashed(stop, progress)) {
		(void)diag_set(diag, 0,
			"step %u of %u: the density crashes: %.4f of all weights are left, %.4f of "
			"the tensor that lost most",
			progress->step, progress->steps, progress->density,
			progress->lowest_density);
		return 1;
	}
	if (serves_maps(stop))
		return 0;
	if (progress->n_flips == 0 && progress->step >= progress->steps - progress->steps / 5) {
		(void)diag_set(diag, 0,
			"step %u of %u: no bit has moved, and the steps that are left are small",
			progress->step, progress->steps);
		return 1;
	}
	if (stop->kept.n_worse >= N_WORSE) {
		(void)diag_set(diag, 0,
			"step %u of %u: the mask has come apart: %u looks in succession found it "
			"below the frozen model",
			progress->step, progress->steps, stop->kept.n_worse);
		return 1;
	}
	return 0;
}

static bool is_sound(const struct early_stop *stop, const struct round_progress *progress,
	const struct judgement *judgement)
{
	float surely = judgement->margin - stop->limits.errors * judgement->margin_error;

	return surely > stop->frozen.margin && progress->loss_ratio < stop->limits.loss_ratio;
}

static int look(
	struct early_stop *stop, const struct round_progress *progress, const struct mask *mask)
{
	struct judgement judgement;
	int r = 0;

	if (stop->frozen.n == 0)
		r = judge(stop, stop->from, &stop->frozen, stop->frozen_images);
	if (r == 0)
		r = judge(stop, mask, &judgement, stop->images);
	if (r < 0)
		return r;
	judge_compare(&judgement, stop->images, stop->frozen_images);
	stop->kept.looked = progress->step;
	if (judgement.margin + stop->limits.errors * judgement.margin_error < stop->frozen.margin)
		stop->kept.n_worse++;
	else
		stop->kept.n_worse = 0;
	if (judgement.effective_rank < stop->limits.rank_share * stop->frozen.effective_rank ||
		has_crashed(stop, progress))
		return 0;
	if (is_sound(stop, progress, &judgement)) {
		stop->kept.is_sound = true;
		keep(stop, progress, &judgement, mask);
	} else if (!stop->kept.is_sound &&
		   (stop->kept.best.progress.step == 0 || serves_maps(stop) ||
			   judgement.margin > stop->kept.best.judgement.margin)) {
		keep(stop, progress, &judgement, mask);
	}
	return 0;
}

int early_stop_step(struct early_stop *stop, const struct round_progress *progress,
	const struct mask *mask, struct diag *diag)
{
	const uint32_t every = (progress->steps + N_LOOKS - 1) / N_LOOKS;
	const bool is_last = progress->step == progress->steps;
	int r = 0;

	if (stop->held.n < EARLY_STOP_MIN_IMAGES) {
		if (is_last && !has_crashed(stop, progress))
			keep(stop, progress, &(struct judgement){ 0 }, mask);
	} else if (progress->n_flips > 0 && progress->step > stop->kept.looked &&
		   (is_last || progress->step % every == 0)) {
		r = look(stop, progress, mask);
	}
	return r < 0 ? r : conclude(stop, progress, diag);
}

struct early_stop_best early_stop_best(const struct early_stop *stop)
{
	return stop->kept.best;
}

const struct mask *early_stop_mask(const struct early_stop *stop)
{
	return stop->kept.best.progress.step ? stop->mask : NULL;
}

bool early_stop_is_sound(const struct early_stop *stop)
{
	return stop->kept.is_sound ||
	       (stop->held.n < EARLY_STOP_MIN_IMAGES && early_stop_mask(stop));
}

/* ---- beside the checkpoint */

static size_t file_bytes(const struct early_stop *stop)
{
	return sizeof(struct kept) + stop->kept.n_words * sizeof(uint64_t) + sizeof(uint64_t);
}

/* Names are pointers of this process: a file has none. names NULL: nor has what is to be written. */
static void name_figures(struct round_progress *progress, const char *const *names)
{
	for (uint32_t i = 0; i < progress->n_figures; i++)
		progress->figures[i].name = names ? names[i] : NULL;
}

int early_stop_save(const struct early_stop *stop, int dir_fd, const char *path)
{
	const size_t n_bytes = file_bytes(stop), n_mask = stop->kept.n_words * sizeof(uint64_t);
	_cleanup_(freep) char *data = malloc(n_bytes);
	uint64_t checksum;
	struct kept kept;

	if (!data)
		return -ENOMEM;
	kept = stop->kept;
	name_figures(&kept.best.progress, NULL);
	memcpy(data, &kept, sizeof(kept));
	memcpy(data + sizeof(stop->kept), stop->mask->words, n_mask);
	checksum = digest_checksum(data, n_bytes - sizeof(checksum));
	memcpy(data + n_bytes - sizeof(checksum), &checksum, sizeof(checksum));
	return blob_write(dir_fd, path, data, n_bytes);
}

static bool is_of_this_round(const struct kept *a, const struct kept *b)
{
	return digest_equal(&a->base, &b->base) && digest_equal(&a->recipe, &b->recipe) &&
	       digest_equal(&a->prep, &b->prep) && digest_equal(&a->manifest, &b->manifest);
}

int early_stop_resume(struct early_stop *stop, int dir_fd, const char *path, struct diag *diag)
{
	_cleanup_(freep) char *data = NULL;
	const struct objective_kind *kind = objective_kind(stop->recipe.objective);
	const uint32_t n_figures = objective_n_figures(kind);
	struct kept kept;
	uint64_t checksum;
	size_t n_bytes;
	int r;

	r = blob_read(dir_fd, path, file_bytes(stop), (void **)&data, &n_bytes);
	if (r == -EFBIG)
		return diag_set(diag, EBADMSG, "%s: not a file of this round's size", path);
	if (r < 0)
		return diag_set(diag, -r, "%s: %s", path, strerror(-r));
	if (n_bytes != file_bytes(stop) || memcmp(data, MAGIC, 8) != 0)
		return diag_set(diag, EBADMSG, "%s: not a file of this round's size", path);
	memcpy(&checksum, data + n_bytes - sizeof(checksum), sizeof(checksum));
	if (checksum != digest_checksum(data, n_bytes - sizeof(checksum)))
		return diag_set(diag, EBADMSG, "%s: checksum does not match", path);
	memcpy(&kept, data, sizeof(kept));
	if (!is_of_this_round(&kept, &stop->kept) || kept.n_words != stop->kept.n_words)
		return diag_set(diag, ESTALE, "%s: of another round", path);
	if (kept.best.progress.n_figures > 0 && kept.best.progress.n_figures != n_figures)
		return diag_set(diag, ESTALE, "%s: of another round", path);
	name_figures(&kept.best.progress, kind->figures);
	stop->kept = kept;
	memcpy(stop->mask->words, data + sizeof(kept), kept.n_words * sizeof(uint64_t));
	mask_count(stop->mask);
	return 0;
}
