/* SPDX-License-Identifier: Apache-2.0 */
#include "labels.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "cleanup.h"
#include "wire.h"

/* "list.csv:3: " where the row stands in a list. */
static int fail_at(const struct ctl *ctl, const struct labels *labels, uint32_t line,
	const char *what, const char *why)
{
	if (line > 0)
		return ctl_fail(ctl, EXIT_FAILED, "%s:%u: %s: %s", labels->list, line, what, why);
	return ctl_fail(ctl, EXIT_FAILED, "%s: %s", what, why);
}

static int class_of(const struct ctl *ctl, struct labels *labels, const char *name, uint32_t line,
	uint32_t *ret_class)
{
	char **grown;

	if (wire_class_name_check(name) < 0)
		return fail_at(ctl, labels, line, name,
			"not a class's name: UTF-8 of at most 63 bytes without control characters");
	for (uint32_t i = labels->n_classes; i-- > 0;)
		if (strcmp(labels->classes[i], name) == 0) {
			*ret_class = i;
			return EXIT_DONE;
		}
	if (labels->n_classes == WIRE_MAX_CLASSES)
		return fail_at(ctl, labels, line, name, "more classes than a site may have");
	grown = realloc(labels->classes, (labels->n_classes + 1) * sizeof(*grown));
	if (!grown)
		return ctl_fail(ctl, EXIT_FAILED, "out of memory");
	labels->classes = grown;
	grown[labels->n_classes] = strdup(name);
	if (!grown[labels->n_classes])
		return ctl_fail(ctl, EXIT_FAILED, "out of memory");
	*ret_class = labels->n_classes++;
	return EXIT_DONE;
}

int labels_put(const struct ctl *ctl, struct labels *labels, const char *path, const char *name,
	uint32_t line)
{
	struct labelled row = { .of = LABELS_NONE, .line = line };
	int status = name ? class_of(ctl, labels, name, line, &row.of) : EXIT_DONE;

	if (status != EXIT_DONE)
		return status;
	if (labels->n == labels->room) {
		size_t room = labels->room ? 2 * labels->room : 256;
		struct labelled *rows = realloc(labels->rows, room * sizeof(*rows));

		if (!rows)
			return ctl_fail(ctl, EXIT_FAILED, "out of memory");
		labels->rows = rows;
		labels->room = room;
	}
	row.path = strdup(path);
	if (!row.path)
		return ctl_fail(ctl, EXIT_FAILED, "out of memory");
	labels->rows[labels->n++] = row;
	return EXIT_DONE;
}

int labels_add(const struct ctl *ctl, struct labels *labels, const char *path, const char *name)
{
	_cleanup_(images_done) struct images images = { 0 };
	int r = images_add(&images, path, PART_ALL), status = EXIT_DONE;

	if (r < 0)
		return ctl_fail(ctl, EXIT_FAILED, "%s: %s", path, strerror(-r));
	images_sort(&images);
	for (size_t i = 0; i < images.n && status == EXIT_DONE; i++)
		status = labels_put(ctl, labels, images.paths[i], name, 0);
	return status;
}

int labels_add_folders(const struct ctl *ctl, struct labels *labels, const char *root)
{
	_cleanup_(images_done) struct images images = { 0 };
	int r = images_add(&images, root, PART_ALL), status = EXIT_DONE;

	if (r >= 0) {
		images_sort(&images);
		r = images_label(&images, root);
	}
	if (r == -EINVAL)
		return ctl_fail(ctl, EXIT_FAILED, "%s: not a folder of folders of images", root);
	if (r < 0)
		return ctl_fail(ctl, EXIT_FAILED, "%s: %s", root, strerror(-r));
	for (size_t i = 0; i < images.n && status == EXIT_DONE; i++)
		status = labels_put(
			ctl, labels, images.paths[i], images.classes[images.labels[i]], 0);
	return status;
}

/* ---- identity */

static int hash_file(const char *path, struct digest *ret_hash)
{
	_cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct digest_state state;
	unsigned char chunk[65536];
	struct stat st;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
	digest_init(&state);
	while ((n = read(fd, chunk, sizeof(chunk))) != 0) {
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0)
			digest_update(&state, chunk, (size_t)n);
	}
	*ret_hash = digest_final(&state);
	return 0;
}

static int by_hash(const void *a, const void *b)
{
	const struct labelled *x = a, *y = b;
	int order = memcmp(x->hash.bytes, y->hash.bytes, DIGEST_BYTES);

	return order ? order : strcmp(x->path, y->path);
}

static const char *class_name(const struct labels *labels, const struct labelled *row)
{
	return row->of == LABELS_NONE ? "none" : labels->classes[row->of];
}

/* Of rows sorted by hash. */
static int merge(const struct ctl *ctl, struct labels *labels)
{
	size_t n = 0;

	for (size_t i = 0; i < labels->n; i++) {
		struct labelled *row = &labels->rows[i], *last = n ? &labels->rows[n - 1] : NULL;

		if (!last || !digest_equal(&last->hash, &row->hash)) {
			labels->rows[n++] = *row;
			continue;
		}
		if (last->of != row->of) {
			int status = ctl_fail(ctl, EXIT_FAILED,
				"%s and %s are the same image, of class %s and of class %s",
				last->path, row->path, class_name(labels, last),
				class_name(labels, row));

			/* What was moved down and what was not yet: every path has one owner. */
			memmove(labels->rows + n, labels->rows + i,
				(labels->n - i) * sizeof(*labels->rows));
			labels->n -= i - n;
			return status;
		}
		free(row->path);
	}
	labels->n = n;
	return EXIT_DONE;
}

struct turn {
	struct labelled row;
	uint32_t turn; /* which of its class */
};

static int by_turn(const void *a, const void *b)
{
	const struct turn *x = a, *y = b;

	if (x->turn != y->turn)
		return x->turn < y->turn ? -1 : 1;
	if (x->row.of != y->row.of)
		return x->row.of < y->row.of ? -1 : 1;
	return strcmp(x->row.path, y->row.path);
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct labelled *)a)->path, ((const struct labelled *)b)->path);
}

static int take_turns(const struct ctl *ctl, struct labels *labels)
{
	_cleanup_(freep) struct turn *turns = calloc(labels->n + 1, sizeof(*turns));
	_cleanup_(freep) uint32_t *seen = calloc((size_t)labels->n_classes + 1, sizeof(*seen));

	if (!turns || !seen)
		return ctl_fail(ctl, EXIT_FAILED, "out of memory");
	qsort(labels->rows, labels->n, sizeof(*labels->rows), by_path);
	for (size_t i = 0; i < labels->n; i++) {
		uint32_t of = labels->rows[i].of;

		turns[i] = (struct turn){ labels->rows[i],
			seen[of == LABELS_NONE ? labels->n_classes : of]++ };
	}
	qsort(turns, labels->n, sizeof(*turns), by_turn);
	for (size_t i = 0; i < labels->n; i++)
		labels->rows[i] = turns[i].row;
	return EXIT_DONE;
}

int labels_identify(const struct ctl *ctl, struct labels *labels)
{
	int status;

	if (labels->n == 0)
		return ctl_fail(ctl, EXIT_FAILED, "no files");
	for (size_t i = 0; i < labels->n; i++) {
		struct labelled *row = &labels->rows[i];
		int r = hash_file(row->path, &row->hash);

		if (r < 0)
			return fail_at(ctl, labels, row->line, row->path, strerror(-r));
	}
	qsort(labels->rows, labels->n, sizeof(*labels->rows), by_hash);
	status = merge(ctl, labels);
	return status == EXIT_DONE ? take_turns(ctl, labels) : status;
}

void labels_done(struct labels *labels)
{
	for (size_t i = 0; i < labels->n; i++)
		free(labels->rows[i].path);
	for (uint32_t i = 0; i < labels->n_classes; i++)
		free(labels->classes[i]);
	free(labels->rows);
	free(labels->classes);
	*labels = (struct labels){ 0 };
}
