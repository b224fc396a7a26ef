/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include "site/state_internal.h"

enum { MAX_DEPTH = 4 };

/* ---- folders */

static DIR *open_entries(int dir_fd, const char *path)
{
	int fd = openat(dir_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	DIR *dir;

	if (fd < 0)
		return NULL;
	dir = fdopendir(fd);
	if (!dir)
		(void)close(fd);
	return dir;
}

/* The next entry that is not "." or ".."; NULL at the end. */
static const struct dirent *next_entry(DIR *dir)
{
	const struct dirent *entry;

	while ((entry = readdir(dir)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			return entry;
	return NULL;
}

/* *budget: how many entries may still go; at 0 -EAGAIN says that some are left. */
static int remove_tree(int dir_fd, const char *path, int depth, unsigned *budget)
{
	_cleanup_(closedirp) DIR *dir = NULL;
	const struct dirent *entry;
	int r = 0;

	if (*budget == 0)
		return -EAGAIN;
	--*budget;
	if (unlinkat(dir_fd, path, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return -errno;
	if (depth == 0)
		return -ELOOP;
	dir = open_entries(dir_fd, path);
	if (!dir)
		return -errno;
	while (r == 0 && (entry = next_entry(dir)))
		r = remove_tree(dirfd(dir), entry->d_name, depth - 1, budget);
	if (r == 0 && unlinkat(dir_fd, path, AT_REMOVEDIR) < 0)
		r = -errno;
	return r;
}

int sweep_tree(int dir_fd, const char *path)
{
	unsigned budget = UINT_MAX;

	return remove_tree(dir_fd, path, MAX_DEPTH, &budget);
}

/* No site's name begins with a dot. */
#define TRASH ".trash-"

int sweep_throw_away(struct state *state, const char *site)
{
	char from[96], to[96];

	(void)snprintf(from, sizeof(from), "sites/%.64s", site);
	(void)snprintf(to, sizeof(to), "sites/" TRASH "%" PRIx64, clock_wall_us());
	return renameat(state->dir_fd, from, state->dir_fd, to) < 0 ? -errno : 0;
}

int state_tidy(struct state *state, unsigned n_entries)
{
	_cleanup_(closedirp) DIR *dir = open_entries(state->dir_fd, "sites");
	const struct dirent *entry;
	int r = 0;

	if (!dir)
		return -errno;
	while (r == 0 && (entry = next_entry(dir)))
		if (strncmp(entry->d_name, TRASH, strlen(TRASH)) == 0)
			r = remove_tree(dirfd(dir), entry->d_name, MAX_DEPTH, &n_entries);
	return r == -EAGAIN ? 1 : r;
}

static int sync_folder(int dir_fd, const char *path)
{
	_cleanup_(closep) int fd = openat(dir_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

int sweep_make_folders(struct state *state, const char *site)
{
	static const char *const folders[] = { "", "/replay", "/masks", "/round" };
	char path[96];
	int r;

	for (unsigned i = 0; i < ARRAY_SIZE(folders); i++) {
		(void)snprintf(path, sizeof(path), "sites/%s%s", site, folders[i]);
		if (mkdirat(state->dir_fd, path, 0750) < 0 && errno != EEXIST)
			return -errno;
	}
	(void)snprintf(path, sizeof(path), "sites/%s", site);
	r = sync_folder(state->dir_fd, path);
	return r < 0 ? r : sync_folder(state->dir_fd, "sites");
}

int sweep_open_folder(const struct state *state, const char *site, const char *folder)
{
	char path[96];
	int fd;

	(void)snprintf(path, sizeof(path), "sites/%.64s/%s", site, folder);
	fd = openat(state->dir_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? -errno : fd;
}

/* ---- replay: files without a row, rows without a file */

struct names {
	char (*names)[128];
	int64_t *ids;
	size_t n, size;
};

static void names_done(struct names *names)
{
	free(names->names);
	free(names->ids);
}

static int names_add(struct names *names, const char *name, int64_t id)
{
	if (names->n == names->size) {
		size_t size = names->size ? 2 * names->size : 256;
		void *grown = realloc(names->names, size * sizeof(*names->names));
		void *ids = realloc(names->ids, size * sizeof(*names->ids));

		if (grown)
			names->names = grown;
		if (ids)
			names->ids = ids;
		if (!grown || !ids)
			return -ENOMEM;
		names->size = size;
	}
	(void)snprintf(names->names[names->n], sizeof(*names->names), "%s", name);
	names->ids[names->n++] = id;
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(a, b);
}

static int read_rows(struct state *state, int64_t id, struct names *rows)
{
	sqlite3_stmt *statement;
	char blob[128];
	int r;

	r = statement_get(state, &statement, SQL_IMAGE_BLOBS, "i", id);
	while (r >= 0 && (r = statement_step(state, statement)) > 0) {
		r = statement_text(statement, 2, blob, sizeof(blob));
		if (r == 0)
			r = names_add(rows, blob, sqlite3_column_int64(statement, 0));
		if (r < 0)
			(void)sqlite3_reset(statement);
	}
	return r;
}

/* Removes files without a row; ret_files gets the others, sorted. */
static int sweep_files(int fd, const struct names *rows, struct names *files)
{
	_cleanup_(closedirp) DIR *dir = open_entries(fd, ".");
	const struct dirent *entry;
	int r;

	if (!dir)
		return -errno;
	while ((entry = next_entry(dir))) {
		if (strlen(entry->d_name) >= sizeof(*rows->names) || rows->n == 0 ||
			!bsearch(entry->d_name, rows->names, rows->n, sizeof(*rows->names),
				by_name)) {
			(void)sweep_tree(fd, entry->d_name);
			continue;
		}
		r = names_add(files, entry->d_name, 0);
		if (r < 0)
			return r;
	}
	if (files->n > 1)
		qsort(files->names, files->n, sizeof(*files->names), by_name);
	return 0;
}

static int drop_lost_rows(
	struct state *state, const char *site, const struct names *rows, const struct names *files)
{
	char detail[64];
	size_t n_lost = 0;
	int r = 0;

	for (size_t i = 0; r >= 0 && i < rows->n; i++) {
		if (files->n > 0 && bsearch(rows->names[i], files->names, files->n,
					    sizeof(*files->names), by_name))
			continue;
		n_lost++;
		r = statement_run(state, SQL_IMAGE_DELETE, "i", rows->ids[i]);
	}
	if (r < 0 || n_lost == 0)
		return r;
	(void)snprintf(detail, sizeof(detail), "%zu rows without a file", n_lost);
	return audit_add(state, site, "image.lost", detail);
}

static int sweep_replay(struct state *state, const char *site, int64_t id, struct diag *diag)
{
	_cleanup_(names_done) struct names rows = { 0 }, files = { 0 };
	_cleanup_(closep) int fd = sweep_open_folder(state, site, "replay");
	int r;

	r = read_rows(state, id, &rows);
	if (r < 0)
		return r;
	/* A folder that is gone whole is a missing mount rather than lost images. */
	if (fd < 0 && rows.n > 0)
		return diag_set(
			diag, -fd, "%s/sites/%s/replay: %s", state->dir, site, strerror(-fd));
	if (fd < 0)
		return sweep_make_folders(state, site);
	r = sweep_files(fd, &rows, &files);
	if (r < 0)
		return r;
	r = state_begin(state);
	if (r < 0)
		return r;
	return state_end(state, drop_lost_rows(state, site, &rows, &files));
}

/* ---- masks and rounds */

static bool mask_file_wanted(
	const char *name, const struct version_row *versions, uint32_t n_versions)
{
	char suffix[16], again[48];
	uint32_t version;

	if (sscanf(name, "%" SCNu32 ".%15s", &version, suffix) != 2 ||
		(strcmp(suffix, "kmask") != 0 && strcmp(suffix, "kcas") != 0 &&
			strcmp(suffix, "kref") != 0 && strcmp(suffix, "khard") != 0 &&
			strcmp(suffix, "manifest") != 0))
		return false;
	(void)snprintf(again, sizeof(again), "%" PRIu32 ".%s", version, suffix);
	if (strcmp(name, again) != 0)
		return false;
	if (version == 0)
		return strcmp(suffix, "kref") == 0;
	for (uint32_t i = 0; i < n_versions; i++)
		if (versions[i].version == version)
			return versions[i].state != VERSION_LEARNING &&
			       versions[i].state != VERSION_FAILED;
	return false;
}

static int sweep_masks(struct state *state, const char *site, const struct version_row *versions,
	uint32_t n_versions)
{
	_cleanup_(closep) int fd = sweep_open_folder(state, site, "masks");
	_cleanup_(closedirp) DIR *dir = NULL;
	const struct dirent *entry;

	if (fd < 0)
		return fd == -ENOENT ? 0 : fd;
	dir = open_entries(fd, ".");
	if (!dir)
		return -errno;
	while ((entry = next_entry(dir)))
		if (!mask_file_wanted(entry->d_name, versions, n_versions))
			(void)sweep_tree(fd, entry->d_name);
	return 0;
}

static bool ends_with(const char *text, const char *end)
{
	size_t n = strlen(text), n_end = strlen(end);

	return n >= n_end && strcmp(text + n - n_end, end) == 0;
}

static void sweep_temporaries(int fd)
{
	_cleanup_(closedirp) DIR *dir = open_entries(fd, ".");
	const struct dirent *entry;

	while (dir && (entry = next_entry(dir)))
		if (ends_with(entry->d_name, ".tmp"))
			(void)unlinkat(fd, entry->d_name, 0);
}

/* A round that was running goes on from its checkpoint; without its manifest it cannot. */
static int sweep_round(struct state *state, const char *site, const struct version_row *versions,
	uint32_t n_versions)
{
	_cleanup_(closep) int fd = sweep_open_folder(state, site, "round");
	char path[96];

	for (uint32_t i = 0; i < n_versions; i++) {
		if (versions[i].state != VERSION_LEARNING)
			continue;
		if (fd < 0 || faccessat(fd, "manifest", R_OK, 0) < 0)
			return state_round_fail(
				state, site, versions[i].version, "the round's manifest is gone");
		sweep_temporaries(fd);
		return 0;
	}
	(void)snprintf(path, sizeof(path), "sites/%s/round", site);
	(void)sweep_tree(state->dir_fd, path);
	return 0;
}

/* Who asked to learn a version again has gone with the process. */
static void sweep_again(struct state *state, const char *site)
{
	char path[96];

	(void)snprintf(path, sizeof(path), "sites/%.64s/again", site);
	(void)sweep_tree(state->dir_fd, path);
}

static int sweep_site(struct state *state, const char *site, struct diag *diag)
{
	_cleanup_(freep) struct version_row *versions = NULL;
	uint32_t n_versions = 0;
	int64_t id;
	int r;

	r = site_id(state, site, &id);
	if (r == 0)
		r = sweep_replay(state, site, id, diag);
	if (r == 0)
		r = state_version_list(state, site, &versions, &n_versions);
	if (r == 0)
		r = sweep_masks(state, site, versions, n_versions);
	if (r == 0)
		r = sweep_round(state, site, versions, n_versions);
	if (r == 0)
		sweep_again(state, site);
	if (r == 0)
		r = sweep_make_folders(state, site);
	return r;
}

static int sweep_unknown_sites(struct state *state)
{
	_cleanup_(closedirp) DIR *dir = open_entries(state->dir_fd, "sites");
	const struct dirent *entry;

	if (!dir)
		return -errno;
	while ((entry = next_entry(dir))) {
		int64_t id;
		int r = site_id(state, entry->d_name, &id);

		if (r == -ENOENT)
			r = sweep_tree(dirfd(dir), entry->d_name);
		if (r < 0)
			return r;
	}
	return 0;
}

int sweep_all(struct state *state, struct diag *diag)
{
	_cleanup_(freep) struct site_row *sites = NULL;
	struct diag said = { "" };
	uint32_t n_sites = 0;
	int r;

	r = state_site_list(state, &sites, &n_sites);
	if (r < 0)
		return diag_set(diag, -r, "%s/state.db: %s", state->dir, strerror(-r));
	r = sweep_unknown_sites(state);
	if (r < 0)
		return diag_set(diag, -r, "%s/sites: %s", state->dir, strerror(-r));
	for (uint32_t i = 0; i < n_sites; i++) {
		r = sweep_site(state, sites[i].site, &said);
		if (r < 0)
			return diag_set(diag, -r, "%s", said.text[0] ? said.text : strerror(-r));
	}
	r = statement_run(state, SQL_SITE_UNPIN_IDLE, "");
	if (r < 0)
		return diag_set(diag, -r, "%s/state.db: %s", state->dir, strerror(-r));
	return 0;
}
