/* SPDX-License-Identifier: Apache-2.0 */
#include "heat_target.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "cleanup.h"

void heat_targets_done(struct heat_targets *targets)
{
	for (size_t i = 0; i < targets->n; i++)
		free(targets->paths[i]);
	free(targets->paths);
	*targets = (struct heat_targets){ 0 };
}

static char *path_in(const char *folder, const char *image)
{
	const char *name = strrchr(image, '/'), *dot;
	char *path;
	int n_name;

	name = name ? name + 1 : image;
	dot = strrchr(name, '.');
	n_name = dot && dot > name ? (int)(dot - name) : (int)strlen(name);
	return asprintf(&path, "%s/%.*s.png", folder, n_name, name) < 0 ? NULL : path;
}

/* An index and what it is sorted by: a path, or the file behind one. */
struct entry {
	const char *path;
	dev_t dev;
	ino_t ino;
	size_t i;
};

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct entry *)a)->path, ((const struct entry *)b)->path);
}

static int by_file(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;
	int dev = (x->dev > y->dev) - (x->dev < y->dev);

	return dev ? dev : (x->ino > y->ino) - (x->ino < y->ino);
}

static int check_twins(const struct ctl *ctl, const struct heat_targets *targets,
	const struct images *images, struct entry *entries)
{
	for (size_t i = 0; i < targets->n; i++)
		entries[i] = (struct entry){ .path = targets->paths[i], .i = i };
	qsort(entries, targets->n, sizeof(*entries), by_path);
	for (size_t i = 1; i < targets->n; i++)
		if (strcmp(entries[i - 1].path, entries[i].path) == 0)
			return ctl_fail(ctl, EXIT_USAGE,
				"the maps of %s and %s would both be %s: one call each",
				images->paths[entries[i - 1].i], images->paths[entries[i].i],
				entries[i].path);
	return EXIT_DONE;
}

/* By what the paths lead to: however they are spelt, and over links. */
static int check_images(const struct ctl *ctl, const struct heat_targets *targets,
	const struct images *images, struct entry *entries)
{
	size_t n = 0;
	struct stat st;

	for (size_t i = 0; i < images->n; i++)
		if (stat(images->paths[i], &st) == 0)
			entries[n++] = (struct entry){ NULL, st.st_dev, st.st_ino, i };
	qsort(entries, n, sizeof(*entries), by_file);
	for (size_t i = 0; i < targets->n; i++) {
		struct entry target;

		if (stat(targets->paths[i], &st) < 0)
			continue;
		target = (struct entry){ NULL, st.st_dev, st.st_ino, i };
		if (bsearch(&target, entries, n, sizeof(*entries), by_file))
			return ctl_fail(ctl, EXIT_USAGE,
				"--hardness: the map of %s would replace the image %s",
				images->paths[i], targets->paths[i]);
	}
	return EXIT_DONE;
}

int heat_targets_find(const struct ctl *ctl, struct heat_targets *ret_targets,
	const struct images *images, const char *to)
{
	_cleanup_(heat_targets_done) struct heat_targets targets = { 0 };
	_cleanup_(freep) struct entry *entries = calloc(images->n + 1, sizeof(*entries));
	bool is_folder;
	struct stat st;
	int status;

	is_folder = stat(to, &st) == 0 && S_ISDIR(st.st_mode);
	if (!is_folder && images->n > 1)
		return ctl_fail(ctl, EXIT_USAGE,
			"--hardness %s: %zu images need a folder that is there", to, images->n);
	targets.paths = calloc(images->n + 1, sizeof(*targets.paths));
	if (!targets.paths || !entries)
		return ctl_fail(ctl, EXIT_FAILED, "out of memory");
	for (; targets.n < images->n; targets.n++) {
		targets.paths[targets.n] =
			is_folder ? path_in(to, images->paths[targets.n]) : strdup(to);
		if (!targets.paths[targets.n])
			return ctl_fail(ctl, EXIT_FAILED, "out of memory");
	}
	status = check_twins(ctl, &targets, images, entries);
	if (status == EXIT_DONE)
		status = check_images(ctl, &targets, images, entries);
	if (status != EXIT_DONE)
		return status;
	*ret_targets = targets;
	targets = (struct heat_targets){ 0 };
	return EXIT_DONE;
}
