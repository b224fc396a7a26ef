/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "ingest/kimg.h"
#include "learner/images.h"

#define KIMG_MAX_BYTES ((size_t)IMAGE_MAX_PIXELS * 3 + 64)

struct cached {
	struct image *image; /* NULL: not in memory */
	uint64_t used;
};

struct images {
	int dir_fd;
	struct manifest manifest;
	struct cached *cached;          /* (manifest.n) */
	uint32_t *sides[2], n_sides[2]; /* entries that are learnt from, held out */
	uint32_t *judged, n_judged;     /* of the held-out ones; NULL: all */
	size_t n_bytes, max_bytes;      /* of pixels in memory */
	uint64_t clock;
	struct interrupt interrupt;
	bool interruptible;
	struct diag error;
};

static size_t size_of(const struct image *image)
{
	return (size_t)image->width * image->height * image->n_channels;
}

/* Least recently used first; a scan is nothing beside the read that follows it. */
static void make_room(struct images *images, size_t n_bytes)
{
	while (images->n_bytes + n_bytes > images->max_bytes) {
		struct cached *oldest = NULL;

		for (uint32_t i = 0; i < images->manifest.n; i++) {
			struct cached *cached = &images->cached[i];

			if (cached->image && (!oldest || cached->used < oldest->used))
				oldest = cached;
		}
		if (!oldest)
			return;
		images->n_bytes -= size_of(oldest->image);
		image_free(TAKE_PTR(oldest->image));
	}
}

static int load(struct images *images, uint32_t i, struct diag *diag)
{
	const char *name = images->manifest.entries[i].blob;
	_cleanup_(image_freep) struct image *image = NULL;
	_cleanup_(freep) void *data = NULL;
	struct diag why = { "" };
	size_t n_bytes;
	int r;

	r = blob_read(images->dir_fd, name, KIMG_MAX_BYTES, &data, &n_bytes);
	if (r < 0)
		return diag_set(diag, -r, "%s: %s", name, strerror(-r));
	r = kimg_decode(&image, data, n_bytes, &why);
	if (r < 0)
		return diag_set(diag, -r, "%s: %s", name, why.text);
	make_room(images, size_of(image));
	images->n_bytes += size_of(image);
	images->cached[i] = (struct cached){ .image = TAKE_PTR(image) };
	return 0;
}

int images_check(const struct images *images)
{
	if (!images->interruptible || !images->interrupt.check)
		return 0;
	return images->interrupt.check(images->interrupt.owner);
}

static int get(struct images *images, uint32_t i, struct image_view *ret_view)
{
	struct cached *cached = &images->cached[i];
	int r;

	r = images_check(images);
	if (r < 0)
		return r;
	if (!cached->image) {
		r = load(images, i, &images->error);
		if (r < 0)
			return r;
	}
	cached->used = ++images->clock;
	*ret_view = image_view(cached->image);
	return 0;
}

/* Only an image's own fault leaves it out; anything else is ours and ends the job. */
static bool is_lost(int r)
{
	return r == -ENOENT || r == -EBADMSG || r == -EFBIG || r == -EINVAL || r == -EIO;
}

/* Reads all, and closes the gaps that lost images leave in manifest and cache. */
static int read_all(struct images *images, uint32_t *ret_n_lost, struct diag *diag)
{
	struct manifest *manifest = &images->manifest;
	uint32_t n_kept = 0, n = manifest->n;
	struct diag why = { "" };

	for (uint32_t i = 0; i < n; i++) {
		int r = images_check(images);

		if (r == 0)
			r = load(images, i, &why);
		if (r < 0 && !is_lost(r))
			return diag_set(diag, -r, "%s", why.text[0] ? why.text : strerror(-r));
		if (r < 0 && i == n_kept)
			(void)diag_set(diag, -r, "%s", why.text);
		if (r < 0)
			continue;
		manifest->entries[n_kept] = manifest->entries[i];
		if (n_kept != i) {
			images->cached[n_kept] = images->cached[i];
			images->cached[i] = (struct cached){ 0 };
		}
		images->cached[n_kept++].used = ++images->clock;
	}
	manifest->n = n_kept;
	*ret_n_lost = n - n_kept;
	return n_kept == 0 ? -ENODATA : 0;
}

static int split(struct images *images)
{
	const struct manifest *manifest = &images->manifest;

	for (unsigned side = 0; side < 2; side++) {
		images->sides[side] = calloc(manifest->n, sizeof(*images->sides[side]));
		if (!images->sides[side])
			return -ENOMEM;
	}
	for (uint32_t i = 0; i < manifest->n; i++) {
		unsigned side = manifest->entries[i].held;

		images->sides[side][images->n_sides[side]++] = i;
	}
	return 0;
}

int images_open(struct images **ret_images, struct manifest *manifest, const char *replay,
	size_t max_cached, struct interrupt interrupt, uint32_t *ret_n_lost, struct diag *diag)
{
	_cleanup_(images_freep) struct images *images = calloc(1, sizeof(*images));
	uint32_t n_lost;
	int r;

	if (!images)
		return -ENOMEM;
	images->max_bytes = max_cached;
	images->interrupt = interrupt;
	images->interruptible = true;
	images->dir_fd = open(replay, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (images->dir_fd < 0)
		return diag_set(diag, errno, "%s: %s", replay, strerror(errno));
	images->cached = calloc(manifest->n + 1, sizeof(*images->cached));
	if (!images->cached)
		return -ENOMEM;
	images->manifest = *manifest;
	r = read_all(images, &n_lost, diag);
	if (r == 0)
		r = split(images);
	if (r < 0) {
		/* The manifest goes back to its owner; the cache is as long as it was. */
		manifest->n = images->manifest.n;
		images->manifest.entries = NULL;
		images->manifest.classes = (struct classes){ 0 };
		return r;
	}
	*manifest = (struct manifest){ 0 };
	*ret_n_lost = n_lost;
	*ret_images = TAKE_PTR(images);
	return 0;
}

void images_free(struct images *images)
{
	if (!images)
		return;
	for (uint32_t i = 0; images->cached && i < images->manifest.n; i++)
		image_free(images->cached[i].image);
	free(images->cached);
	free(images->sides[0]);
	free(images->sides[1]);
	free(images->judged);
	manifest_done(&images->manifest);
	closep(&images->dir_fd);
	free(images);
}

const struct manifest *images_manifest(const struct images *images)
{
	return &images->manifest;
}

void images_set_interruptible(struct images *images, bool on)
{
	images->interruptible = on;
}

const char *images_error(const struct images *images)
{
	return images->error.text;
}

int images_judge_only(struct images *images, const bool *judged)
{
	uint32_t *entries = malloc(((size_t)images->n_sides[1] + 1) * sizeof(*entries)), n = 0;

	if (!entries)
		return -ENOMEM;
	for (uint32_t i = 0; i < images->n_sides[1]; i++)
		if (judged[images->sides[1][i]])
			entries[n++] = images->sides[1][i];
	free(images->judged);
	images->judged = entries;
	images->n_judged = n;
	return 0;
}

static int get_of_judged(void *owner, uint32_t i, struct image_view *ret_view)
{
	struct images *images = owner;

	return get(images, images->judged[i], ret_view);
}

struct image_source images_judged_source(struct images *images, struct images_part *part)
{
	struct image_source source = images_source(images, part, true, UINT32_MAX);

	if (!images->judged)
		return source;
	source.owner = images;
	source.n = images->n_judged;
	source.get = get_of_judged;
	return source;
}

static int get_of_part(void *owner, uint32_t i, struct image_view *ret_view)
{
	const struct images_part *part = owner;
	uint32_t at = (uint32_t)((uint64_t)i * part->n_all / part->n);

	return get(part->images, part->images->sides[part->held][at], ret_view);
}

struct image_source images_source(
	struct images *images, struct images_part *part, bool held, uint32_t n_max)
{
	uint32_t n = images->n_sides[held];

	*part = (struct images_part){
		.images = images, .held = held, .n_all = n, .n = n < n_max ? n : n_max
	};
	return (struct image_source){
		.owner = part,
		.n = part->n,
		.get = get_of_part,
		.manifest = manifest_digest(&images->manifest),
	};
}

uint32_t images_all_at(const struct images_all *all, uint32_t i)
{
	uint32_t n = all->images->manifest.n;

	return (uint32_t)(((uint64_t)i * n / all->n + all->first) % n);
}

static int get_of_all(void *owner, uint32_t i, struct image_view *ret_view)
{
	const struct images_all *all = owner;

	return get(all->images, images_all_at(all, i), ret_view);
}

struct image_source images_all_source(
	struct images *images, struct images_all *all, uint32_t n_max, uint32_t first)
{
	uint32_t n = images->manifest.n;

	*all = (struct images_all){ .images = images, .n = n < n_max ? n : n_max, .first = first };
	return (struct image_source){
		.owner = all,
		.n = all->n,
		.get = get_of_all,
		.manifest = manifest_digest(&images->manifest),
	};
}

/* ---- images with a label */

void images_labelled_done(struct images_labelled *labelled)
{
	free(labelled->entries);
	free(labelled->labels);
	*labelled = (struct images_labelled){ 0 };
}

/* Keeps what has a class: labels are of every entry, entries are all of them. */
static void close_gaps(struct images_labelled *labelled, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		if (labelled->labels[i] == CLASSES_NONE)
			continue;
		labelled->entries[labelled->n] = i;
		labelled->labels[labelled->n++] = labelled->labels[i];
	}
}

int images_labelled_learn(
	struct images_labelled *ret_labelled, struct images *images, struct diag *diag)
{
	_cleanup_(images_labelled_done) struct images_labelled labelled = { .images = images };
	int n_classes = manifest_learnt_labels(&images->manifest, &labelled.labels, diag);

	if (n_classes < 0)
		return n_classes;
	labelled.n_classes = (uint32_t)n_classes;
	labelled.entries = calloc((size_t)images->manifest.n + 1, sizeof(*labelled.entries));
	if (!labelled.entries)
		return -ENOMEM;
	close_gaps(&labelled, images->manifest.n);
	*ret_labelled = labelled;
	labelled = (struct images_labelled){ 0 };
	return 0;
}

/* How many of each class are judged on, of those that n_max leaves. is_judged (manifest.n) */
static void choose_judged(
	const struct images *images, uint32_t n_max, bool *is_judged, uint32_t *counts)
{
	uint32_t n = images->judged ? images->n_judged : images->n_sides[1], n_labelled = 0;
	const uint32_t *judged = images->judged ? images->judged : images->sides[1];

	for (uint32_t i = 0; i < n; i++)
		n_labelled += images->manifest.entries[judged[i]].label > 0;
	for (uint32_t i = 0, seen = 0; i < n; i++) {
		uint32_t label = images->manifest.entries[judged[i]].label;

		if (!label)
			continue;
		/* Evenly thinned out, as everywhere. */
		if (n_labelled <= n_max || (uint64_t)(seen + 1) * n_max / n_labelled >
						   (uint64_t)seen * n_max / n_labelled) {
			is_judged[judged[i]] = true;
			counts[label - 1]++;
		}
		seen++;
	}
}

int images_labelled_judged(
	struct images_labelled *ret_labelled, struct images *images, uint32_t n_min, uint32_t n_max)
{
	const struct classes *classes = &images->manifest.classes;
	uint32_t n = images->manifest.n;
	_cleanup_(images_labelled_done) struct images_labelled labelled = { .images = images };
	_cleanup_(freep) uint32_t *counts = calloc((size_t)classes->n + 1, sizeof(*counts));
	_cleanup_(freep) uint32_t *numbers = calloc((size_t)classes->n + 1, sizeof(*numbers));
	_cleanup_(freep) bool *is_judged = calloc((size_t)n + 1, sizeof(*is_judged));

	labelled.entries = calloc((size_t)n + 1, sizeof(*labelled.entries));
	labelled.labels = calloc((size_t)n + 1, sizeof(*labelled.labels));
	if (!counts || !numbers || !is_judged || !labelled.entries || !labelled.labels)
		return -ENOMEM;
	choose_judged(images, n_max, is_judged, counts);
	labelled.n_classes = classes_number(classes, counts, n_min, numbers);
	manifest_labels(&images->manifest, numbers, labelled.labels);
	for (uint32_t i = 0; i < n; i++)
		if (!is_judged[i])
			labelled.labels[i] = CLASSES_NONE;
	close_gaps(&labelled, n);
	*ret_labelled = labelled;
	labelled = (struct images_labelled){ 0 };
	return 0;
}

static int get_of_labelled(void *owner, uint32_t i, struct image_view *ret_view)
{
	const struct images_labelled *labelled = owner;

	return get(labelled->images, labelled->entries[i], ret_view);
}

struct image_source images_labelled_source(struct images_labelled *labelled)
{
	return (struct image_source){
		.owner = labelled,
		.n = labelled->n,
		.get = get_of_labelled,
		.manifest = manifest_digest(&labelled->images->manifest),
		.labels = labelled->labels,
		.n_classes = labelled->n_classes,
	};
}
