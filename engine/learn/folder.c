/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/blob.h"
#include "learn/folder.h"

#define MAX_FILE_BYTES (64u << 20)
#define MAX_DEPTH 8

/** What folder_open() carries along. */
struct folder_walk {
	struct folder *folder;
	struct digest *digests; /* of the images so far */
	uint32_t n_max;
	enum folder_part part;
	uint32_t max_shorter;
	struct diag *diag;
};

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void free_names(char **names)
{
	for (size_t i = 0; names[i]; i++)
		free(names[i]);
	free(names);
}
DEFINE_CLEANUP(char **, free_names)

/* Sorted, NULL-terminated; without hidden and auxiliary names. */
static int list(char ***ret_names, int dir_fd)
{
	_cleanup_(free_namesp) char **names = calloc(1, sizeof(*names));
	_cleanup_(closedirp) DIR *dir = NULL;
	size_t n = 0;
	int fd = dup(dir_fd);

	if (fd < 0)
		return -errno;
	dir = fdopendir(fd);
	if (!dir || !names) {
		if (!dir)
			(void)close(fd);
		return -ENOMEM;
	}
	for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir)) {
		char **more;

		if (entry->d_name[0] == '_' || entry->d_name[0] == '.')
			continue;
		more = realloc(names, (n + 2) * sizeof(*names));
		if (!more)
			return -ENOMEM;
		names = more;
		names[n + 1] = NULL;
		names[n] = strdup(entry->d_name);
		if (!names[n])
			return -ENOMEM;
		n++;
	}
	qsort(names, n, sizeof(*names), compare_names);
	*ret_names = TAKE_PTR(names);
	return 0;
}

static int grow(struct folder_walk *walk)
{
	struct folder *folder = walk->folder;
	uint32_t n_max = walk->n_max ? 2 * walk->n_max : 256;
	void *more;

	if (folder->n < walk->n_max)
		return 0;
	more = realloc(folder->images, n_max * sizeof(struct image *));
	if (!more)
		return -ENOMEM;
	folder->images = more;
	more = realloc(folder->labels, n_max * sizeof(*folder->labels));
	if (!more)
		return -ENOMEM;
	folder->labels = more;
	more = realloc(walk->digests, n_max * sizeof(*walk->digests));
	if (!more)
		return -ENOMEM;
	walk->digests = more;
	walk->n_max = n_max;
	return 0;
}

static int shrink(struct image **image, uint32_t max_shorter)
{
	struct image_view view = image_view(*image);
	struct image *smaller;
	int r;

	if (max_shorter == 0 || (view.width <= max_shorter || view.height <= max_shorter))
		return 0;
	r = image_shrink(&smaller, &view, max_shorter);
	if (r < 0)
		return r;
	image_free(*image);
	*image = smaller;
	return 0;
}

static int add_file(struct folder_walk *walk, int dir_fd, const char *name, uint32_t label)
{
	_cleanup_(image_freep) struct image *image = NULL;
	_cleanup_(freep) void *data = NULL;
	struct folder *folder = walk->folder;
	size_t n_bytes;
	int r;

	r = blob_read(dir_fd, name, MAX_FILE_BYTES, &data, &n_bytes);
	if (r < 0)
		return diag_set(walk->diag, -r, "%s: %s", name, strerror(-r));
	if (walk->part != FOLDER_ALL &&
		digest_is_held(data, n_bytes) != (walk->part == FOLDER_HELD))
		return 0;
	r = image_decode(&image, data, n_bytes, NULL);
	if (r == -EBADMSG)
		return 0;
	if (r == 0)
		r = shrink(&image, walk->max_shorter);
	if (r < 0)
		return diag_set(walk->diag, -r, "%s: %s", name, strerror(-r));
	r = grow(walk);
	if (r < 0)
		return r;
	walk->digests[folder->n] = digest_of(data, n_bytes);
	folder->labels[folder->n] = label;
	folder->images[folder->n++] = TAKE_PTR(image);
	return 0;
}

static int add_class(struct folder *folder, const char *name, uint32_t *ret_label)
{
	char **more = realloc(folder->names, (folder->n_names + 1) * sizeof(*folder->names));

	if (!more)
		return -ENOMEM;
	folder->names = more;
	folder->names[folder->n_names] = strdup(name);
	if (!folder->names[folder->n_names])
		return -ENOMEM;
	*ret_label = folder->n_names++;
	return 0;
}

/* The class of the images right in a folder is that folder: named when the first one is met. */
static int walk_folder(struct folder_walk *walk, int dir_fd, const char *name, unsigned depth)
{
	_cleanup_(free_namesp) char **names = NULL;
	uint32_t label = UINT32_MAX;
	int r;

	r = list(&names, dir_fd);
	if (r < 0)
		return diag_set(walk->diag, -r, "%s: %s", name, strerror(-r));
	for (size_t i = 0; names[i]; i++) {
		struct stat st;

		if (fstatat(dir_fd, names[i], &st, 0) < 0)
			return diag_set(walk->diag, errno, "%s: %s", names[i], strerror(errno));
		if (S_ISDIR(st.st_mode) && depth < MAX_DEPTH) {
			_cleanup_(closep) int fd =
				openat(dir_fd, names[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC);

			if (fd < 0)
				return diag_set(
					walk->diag, errno, "%s: %s", names[i], strerror(errno));
			r = walk_folder(walk, fd, names[i], depth + 1);
		} else if (S_ISREG(st.st_mode)) {
			uint32_t n = walk->folder->n;

			r = add_file(walk, dir_fd, names[i], label);
			if (r == 0 && walk->folder->n > n && label == UINT32_MAX) {
				r = add_class(walk->folder, name, &label);
				walk->folder->labels[n] = label;
			}
		}
		if (r < 0)
			return r;
	}
	return 0;
}

/** An image and all that moves with it. */
struct folder_entry {
	struct digest digest;
	uint32_t label, at; /* at: its place by path, which the same bytes twice keep */
	struct image *image;
};

static int compare_entries(const void *a, const void *b)
{
	const struct folder_entry *x = a, *y = b;
	int order = memcmp(x->digest.bytes, y->digest.bytes, DIGEST_BYTES);

	return order ? order : (x->at > y->at) - (x->at < y->at);
}

/* By content, as the manifest is: renamed files are the same source. */
static int sort_images(struct folder_walk *walk)
{
	struct folder *folder = walk->folder;
	_cleanup_(freep) struct folder_entry *entries = calloc(folder->n, sizeof(*entries));

	if (!entries)
		return -ENOMEM;
	for (uint32_t i = 0; i < folder->n; i++)
		entries[i] = (struct folder_entry){ walk->digests[i], folder->labels[i], i,
			folder->images[i] };
	qsort(entries, folder->n, sizeof(*entries), compare_entries);
	for (uint32_t i = 0; i < folder->n; i++) {
		walk->digests[i] = entries[i].digest;
		folder->labels[i] = entries[i].label;
		folder->images[i] = entries[i].image;
	}
	folder->manifest = digest_of(walk->digests, folder->n * sizeof(*walk->digests));
	return 0;
}

int folder_open(struct folder **ret_folder, const char *path, enum folder_part part,
	uint32_t max_shorter, struct diag *diag)
{
	_cleanup_(folder_freep) struct folder *folder = calloc(1, sizeof(*folder));
	_cleanup_(closep) int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct folder_walk walk = {
		.folder = folder, .part = part, .max_shorter = max_shorter, .diag = diag
	};
	int r;

	if (!folder)
		return -ENOMEM;
	if (fd < 0)
		return diag_set(diag, errno, "%s: %s", path, strerror(errno));
	r = walk_folder(&walk, fd, "", 0);
	if (r == 0 && folder->n == 0)
		r = diag_set(diag, ENODATA, "%s: no image in it", path);
	if (r == 0)
		r = sort_images(&walk);
	if (r == 0)
		*ret_folder = TAKE_PTR(folder);
	free(walk.digests);
	return r;
}

void folder_free(struct folder *folder)
{
	if (!folder)
		return;
	for (uint32_t i = 0; i < folder->n; i++)
		image_free(folder->images[i]);
	for (uint32_t i = 0; i < folder->n_names; i++)
		free(folder->names[i]);
	free(folder->images);
	free(folder->labels);
	free(folder->names);
	free(folder);
}

static int folder_get(void *owner, uint32_t i, struct image_view *ret_view)
{
	struct folder *folder = owner;

	if (i >= folder->n)
		return -ERANGE;
	*ret_view = image_view(folder->images[i]);
	return 0;
}

struct image_source folder_source(struct folder *folder)
{
	return (struct image_source){
		.owner = folder,
		.n = folder->n,
		.get = folder_get,
		.manifest = folder->manifest,
		.labels = folder->labels,
		.n_classes = folder->n_names,
	};
}
