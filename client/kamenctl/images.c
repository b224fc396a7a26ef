/* SPDX-License-Identifier: Apache-2.0 */
#include "images.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/digest.h"
#include "cleanup.h"

#define MAX_DEPTH 16

bool images_part_parse(const char *text, enum images_part *ret_part)
{
	static const char *const names[] = { "all", "learn", "held" };

	for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
		if (strcmp(text, names[i]) == 0) {
			*ret_part = (enum images_part)i;
			return true;
		}
	return false;
}

static int add_path(struct images *images, const char *path, uint64_t n_bytes)
{
	if (images->n == images->room) {
		size_t room = images->room ? 2 * images->room : 256;
		char **paths = realloc(images->paths, room * sizeof(*paths));

		if (!paths)
			return -ENOMEM;
		images->paths = paths;
		images->room = room;
	}
	images->paths[images->n] = strdup(path);
	if (!images->paths[images->n])
		return -ENOMEM;
	images->n++;
	if (n_bytes > images->max_bytes)
		images->max_bytes = n_bytes;
	return 0;
}

static int is_held(const char *path, uint64_t n_bytes, bool *ret_held)
{
	_cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
	void *data;

	if (fd < 0)
		return -errno;
	if (n_bytes == 0) {
		*ret_held = digest_is_held("", 0);
		return 0;
	}
	data = mmap(NULL, n_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
	if (data == MAP_FAILED)
		return -errno;
	*ret_held = digest_is_held(data, n_bytes);
	(void)munmap(data, n_bytes);
	return 0;
}

static int add_file(
	struct images *images, const char *path, uint64_t n_bytes, enum images_part part)
{
	bool held = false;

	if (part != PART_ALL) {
		int r = is_held(path, n_bytes, &held);

		if (r < 0)
			return r;
		if (held != (part == PART_HELD))
			return 0;
	}
	return add_path(images, path, n_bytes);
}

static int add_any(struct images *images, const char *path, enum images_part part, int depth);

static int add_folder(struct images *images, const char *path, enum images_part part, int depth)
{
	_cleanup_(closedirp) DIR *dir = opendir(path);
	struct dirent *entry;
	int r = 0;

	if (!dir)
		return -errno;
	while (r >= 0 && (errno = 0, entry = readdir(dir))) {
		_cleanup_(freep) char *below = NULL;

		if (entry->d_name[0] == '.' || entry->d_name[0] == '_')
			continue;
		if (asprintf(&below, "%s/%s", path, entry->d_name) < 0)
			return -ENOMEM;
		r = add_any(images, below, part, depth + 1);
	}
	return r < 0 ? r : -errno;
}

static int add_any(struct images *images, const char *path, enum images_part part, int depth)
{
	struct stat st;

	if (depth > MAX_DEPTH)
		return -ELOOP;
	if (stat(path, &st) < 0)
		return -errno;
	if (S_ISDIR(st.st_mode))
		return add_folder(images, path, part, depth);
	if (!S_ISREG(st.st_mode))
		return 0;
	return add_file(images, path, (uint64_t)st.st_size, part);
}

int images_add(struct images *images, const char *path, enum images_part part)
{
	_cleanup_(freep) char *root = strdup(path);
	size_t n;

	if (!root)
		return -ENOMEM;
	for (n = strlen(root); n > 1 && root[n - 1] == '/'; n--)
		root[n - 1] = 0;
	return add_any(images, root, part, 0);
}

static int compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

void images_sort(struct images *images)
{
	if (images->n)
		qsort(images->paths, images->n, sizeof(*images->paths), compare);
}

static int class_of(struct images *images, const char *name, size_t n_name, uint32_t *ret_label)
{
	char **classes;

	/* Paths are sorted by bytes, so a class's files follow each other but for odd names. */
	for (uint32_t i = images->n_classes; i-- > 0;)
		if (strlen(images->classes[i]) == n_name &&
			memcmp(images->classes[i], name, n_name) == 0) {
			*ret_label = i;
			return 0;
		}
	classes = realloc(images->classes, (images->n_classes + 1) * sizeof(*classes));
	if (!classes)
		return -ENOMEM;
	images->classes = classes;
	classes[images->n_classes] = strndup(name, n_name);
	if (!classes[images->n_classes])
		return -ENOMEM;
	*ret_label = images->n_classes++;
	return 0;
}

int images_label(struct images *images, const char *root)
{
	size_t n_root = strlen(root);
	int r = 0;

	while (n_root > 1 && root[n_root - 1] == '/')
		n_root--;
	images->labels = calloc(images->n ? images->n : 1, sizeof(*images->labels));
	if (!images->labels)
		return -ENOMEM;
	for (size_t i = 0; i < images->n && r >= 0; i++) {
		const char *name = images->paths[i] + n_root, *slash;

		name += strspn(name, "/");
		slash = strchr(name, '/');
		r = slash ? class_of(images, name, (size_t)(slash - name), &images->labels[i])
			  : -EINVAL;
	}
	return r;
}

void images_done(struct images *images)
{
	for (size_t i = 0; i < images->n; i++)
		free(images->paths[i]);
	for (uint32_t i = 0; i < images->n_classes; i++)
		free(images->classes[i]);
	free(images->paths);
	free(images->classes);
	free(images->labels);
	*images = (struct images){ 0 };
}
