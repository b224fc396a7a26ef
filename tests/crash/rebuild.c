/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/rng.h"
#include "crash/disk.h"

#define PAGE 4096u

const char *const disk_loss_names[DISK_N + 1] = { "drop", "names", "mix", "keep", NULL };

/* Where an inode lies now, in root or in the grave. */
struct place {
	unsigned long inode;
	char path[320];
};

struct rebuild {
	const char *shadow;
	enum disk_loss loss;
	struct rng rng;
	struct place *places;
	size_t n, size;
};

static bool is_dot(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* ---- walking what is there */

typedef int visit_fn(void *user, const char *path, const struct stat *st);

static int walk(const char *path, visit_fn *visit, void *user)
{
	_cleanup_(closedirp) DIR *dir = opendir(path);
	const struct dirent *entry;
	struct stat st;
	int r;

	if (!dir || fstat(dirfd(dir), &st) < 0)
		return -errno;
	r = visit(user, path, &st);
	while (r == 0 && (entry = readdir(dir))) {
		char below[320];

		if (is_dot(entry->d_name))
			continue;
		if (snprintf(below, sizeof(below), "%s/%s", path, entry->d_name) >=
			(int)sizeof(below))
			return -ENAMETOOLONG;
		if (lstat(below, &st) < 0)
			return -errno;
		if (S_ISDIR(st.st_mode))
			r = walk(below, visit, user);
		else if (S_ISREG(st.st_mode))
			r = visit(user, below, &st);
	}
	return r;
}

static int settle_one(void *user, const char *path, const struct stat *st)
{
	_cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);

	(void)st;
	return fd < 0 ? -errno : disk_record(user, fd);
}

static int make_control(const char *shadow, uint64_t stop_at)
{
	struct disk_control control = { .stop_at = stop_at };
	_cleanup_(closep) int fd = -1;
	char path[320];

	(void)snprintf(path, sizeof(path), "%s/control", shadow);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, &control, sizeof(control)) != sizeof(control))
		return -EIO;
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *where)
{
	(void)st;
	(void)kind;
	(void)where;
	return remove(path);
}

int disk_remove(const char *path)
{
	if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) < 0 && errno != ENOENT)
		return -errno;
	return 0;
}

int disk_settle(const char *root, const char *shadow, uint64_t stop_at)
{
	char path[320];

	if (disk_remove(shadow) < 0 || mkdir(shadow, 0700) < 0)
		return -EIO;
	(void)snprintf(path, sizeof(path), "%s/grave", shadow);
	if (mkdir(path, 0700) < 0)
		return -errno;
	if (make_control(shadow, stop_at) < 0)
		return -EIO;
	return walk(root, settle_one, (void *)(uintptr_t)shadow);
}

uint64_t disk_points(const char *shadow)
{
	struct disk_control *control;
	uint64_t n;

	if (disk_map(&control, shadow) < 0)
		return 0;
	n = control->n_points;
	(void)munmap(control, sizeof(*control));
	return n;
}

/* ---- what is left */

static int add_place(void *user, const char *path, const struct stat *st)
{
	struct rebuild *rebuild = user;

	if (rebuild->n == rebuild->size) {
		size_t size = rebuild->size ? 2 * rebuild->size : 128;
		struct place *grown = realloc(rebuild->places, size * sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		rebuild->places = grown;
		rebuild->size = size;
	}
	rebuild->places[rebuild->n].inode = st->st_ino;
	(void)snprintf(rebuild->places[rebuild->n].path, sizeof(rebuild->places->path), "%s", path);
	rebuild->n++;
	return 0;
}

static const char *place_of(const struct rebuild *rebuild, unsigned long inode)
{
	for (size_t i = 0; i < rebuild->n; i++)
		if (rebuild->places[i].inode == inode)
			return rebuild->places[i].path;
	return NULL;
}

static bool keeps(struct rebuild *rebuild, bool is_name)
{
	switch (rebuild->loss) {
	case DISK_NAMES:
		return is_name;
	case DISK_MIX:
		return rng_below(&rebuild->rng, 2) == 1;
	case DISK_KEEP:
		return true;
	default:
		return false;
	}
}

static int open_record(const struct rebuild *rebuild, char kind, unsigned long inode)
{
	char path[320];

	(void)snprintf(path, sizeof(path), "%s/%c%lu", rebuild->shadow, kind, inode);
	return open(path, O_RDONLY | O_CLOEXEC);
}

static int rebuild_file(struct rebuild *rebuild, unsigned long inode, const char *to)
{
	const char *place = place_of(rebuild, inode);
	_cleanup_(closep) int kept = open_record(rebuild, 'i', inode);
	_cleanup_(closep) int live = place ? open(place, O_RDONLY | O_CLOEXEC) : -1;
	_cleanup_(closep) int out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
	int sized_by = live >= 0 && keeps(rebuild, false) ? live : kept;
	struct stat st = { 0 };

	if (out < 0 || (sized_by >= 0 && fstat(sized_by, &st) < 0))
		return -errno;
	for (off_t at = 0; at < st.st_size; at += PAGE) {
		size_t n_bytes = st.st_size - at < PAGE ? (size_t)(st.st_size - at) : PAGE;
		int from = live >= 0 && keeps(rebuild, false) ? live : kept;
		char page[PAGE] = { 0 };

		/* What a shorter file lacks is zeros. */
		if (from >= 0 && pread(from, page, n_bytes, at) < 0)
			return -errno;
		if (pwrite(out, page, n_bytes, at) != (ssize_t)n_bytes)
			return -EIO;
	}
	return 0;
}

static int rebuild_folder(struct rebuild *rebuild, unsigned long inode, const char *to);

static int rebuild_entry(struct rebuild *rebuild, const char *to, const char *name, bool is_folder,
	unsigned long inode)
{
	char below[320];

	if (snprintf(below, sizeof(below), "%s/%s", to, name) >= (int)sizeof(below))
		return -ENAMETOOLONG;
	return is_folder ? rebuild_folder(rebuild, inode, below)
			 : rebuild_file(rebuild, inode, below);
}

static int rebuild_from_live(struct rebuild *rebuild, const char *place, const char *to)
{
	_cleanup_(closedirp) DIR *dir = opendir(place);
	const struct dirent *entry;
	int r = 0;

	while (dir && r == 0 && (entry = readdir(dir))) {
		struct stat st;

		if (is_dot(entry->d_name) ||
			fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		if (S_ISDIR(st.st_mode) || S_ISREG(st.st_mode))
			r = rebuild_entry(
				rebuild, to, entry->d_name, S_ISDIR(st.st_mode), st.st_ino);
	}
	return r;
}

static int rebuild_from_record(struct rebuild *rebuild, unsigned long inode, const char *to)
{
	int fd = open_record(rebuild, 'd', inode);
	FILE *file = fd < 0 ? NULL : fdopen(fd, "r");
	char line[320], kind, name[256];
	unsigned long below;
	int r = 0;

	if (!file)
		return 0; /* its names were never kept */
	while (r == 0 && fgets(line, sizeof(line), file))
		if (sscanf(line, "%c %lu %255[^\n]", &kind, &below, name) == 3)
			r = rebuild_entry(rebuild, to, name, kind == 'd', below);
	(void)fclose(file);
	return r;
}

static int rebuild_folder(struct rebuild *rebuild, unsigned long inode, const char *to)
{
	const char *place = place_of(rebuild, inode);

	if (mkdir(to, 0750) < 0)
		return -errno;
	if (place && keeps(rebuild, true))
		return rebuild_from_live(rebuild, place, to);
	return rebuild_from_record(rebuild, inode, to);
}

int disk_rebuild(
	const char *root, const char *shadow, const char *to, enum disk_loss loss, uint64_t seed)
{
	struct rebuild rebuild = {
		.shadow = shadow, .loss = loss, .rng = rng_stream(seed, 0, 0, 0)
	};
	char grave[320];
	struct stat st;
	int r;

	(void)snprintf(grave, sizeof(grave), "%s/grave", shadow);
	if (stat(root, &st) < 0)
		return -errno;
	r = walk(root, add_place, &rebuild);
	if (r == 0)
		r = walk(grave, add_place, &rebuild);
	if (r == 0)
		r = rebuild_folder(&rebuild, st.st_ino, to);
	free(rebuild.places);
	return r;
}
