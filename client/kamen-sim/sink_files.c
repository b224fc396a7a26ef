/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "item.h"

/* Both sinks that write files; truth is NULL for a spool. */
struct sink_files {
	struct sink base;
	int dir_fd;
	FILE *truth;
};

static int write_file(int dir_fd, const char *name, const struct item *item)
{
	_cleanup_(closep) int fd =
		openat(dir_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	const char *data = item->data;

	if (fd < 0)
		return -errno;
	for (size_t n_done = 0; n_done < item->n_bytes;) {
		ssize_t n = write(fd, data + n_done, item->n_bytes - n_done);

		if (n < 0 && errno != EINTR)
			return -errno;
		n_done += n > 0 ? (size_t)n : 0;
	}
	return 0;
}

/* The spool's contract: whoever sees the name sees the whole file. */
static int spool_put(struct sink *sink, const struct item *item)
{
	int dir_fd = ((struct sink_files *)sink)->dir_fd;
	char temporary[sizeof(item->part_id) + 8];
	int r;

	(void)snprintf(temporary, sizeof(temporary), ".%s.tmp", item->part_id);
	r = write_file(dir_fd, temporary, item);
	if (r == 0 && renameat(dir_fd, temporary, dir_fd, item->part_id) < 0)
		r = -errno;
	if (r < 0)
		(void)unlinkat(dir_fd, temporary, 0);
	return r;
}

static int classes_put(struct sink *sink, const struct item *item)
{
	struct sink_files *files = (struct sink_files *)sink;
	const struct part *part = &item->part;
	const char *kind = part_kind_names[part->kind];
	char name[sizeof(item->part_id) + 32];
	int r;

	(void)snprintf(name, sizeof(name), "%s/%s", kind, item->part_id);
	if (mkdirat(files->dir_fd, kind, 0755) < 0 && errno != EEXIST)
		return -errno;
	r = write_file(files->dir_fd, name, item);
	if (r < 0)
		return r;
	r = fprintf(files->truth, "%s\t%s\t%s\t%u\t%u\t%u\t%u\n", name, kind,
		part_defect_names[part->defect], part->box.x, part->box.y, part->box.width,
		part->box.height);
	return r < 0 ? -EIO : 0;
}

static int files_finish(struct sink *sink)
{
	FILE *truth = ((struct sink_files *)sink)->truth;

	return truth && fflush(truth) != 0 ? -errno : 0;
}

static void files_free(struct sink *sink)
{
	struct sink_files *files = (struct sink_files *)sink;

	if (files->truth)
		(void)fclose(files->truth);
	if (files->dir_fd >= 0)
		(void)close(files->dir_fd);
	free(files);
}

static int files_new(struct sink_files **ret_files, const char *dir, bool is_made)
{
	struct sink_files *files;
	int fd;

	if (is_made && mkdir(dir, 0755) < 0 && errno != EEXIST)
		return -errno;
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	files = calloc(1, sizeof(*files));
	if (!files) {
		(void)close(fd);
		return -ENOMEM;
	}
	files->base = (struct sink){ NULL, files_finish, files_free };
	files->dir_fd = fd;
	*ret_files = files;
	return 0;
}

int sink_spool_new(struct sink **ret_sink, const char *dir)
{
	struct sink_files *files;
	int r = files_new(&files, dir, false);

	if (r < 0)
		return r;
	files->base.put = spool_put;
	*ret_sink = &files->base;
	return 0;
}

int sink_classes_new(struct sink **ret_sink, const char *dir)
{
	struct sink_files *files;
	int fd, r = files_new(&files, dir, true);

	if (r < 0)
		return r;
	files->base.put = classes_put;
	fd = openat(files->dir_fd, "_truth.tsv", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	files->truth = fd < 0 ? NULL : fdopen(fd, "w");
	if (!files->truth) {
		r = -errno;
		closep(&fd);
		files_free(&files->base);
		return r;
	}
	(void)fputs("file\tclass\tdefect\tx\ty\twidth\theight\n", files->truth);
	*ret_sink = &files->base;
	return 0;
}
