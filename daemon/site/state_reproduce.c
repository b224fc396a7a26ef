/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "site/manifest.h"
#include "site/state_internal.h"

#define MAX_MANIFEST (256u << 20)

static int read_manifest(struct state *state, const struct version_row *row,
	struct manifest *ret_manifest, struct diag *diag)
{
	_cleanup_(manifest_done) struct manifest manifest = { 0 };
	_cleanup_(closep) int fd = sweep_open_folder(state, row->site, "masks");
	_cleanup_(freep) void *text = NULL;
	struct digest digest;
	size_t n_chars;
	char name[32];
	int r;

	(void)snprintf(name, sizeof(name), "%u.manifest", row->version);
	r = fd < 0 ? fd : blob_read(fd, name, MAX_MANIFEST, &text, &n_chars);
	if (r < 0)
		return diag_set(diag, -r, "site %s: masks/%s: %s", row->site, name, strerror(-r));
	r = manifest_read(&manifest, text, n_chars, diag);
	if (r < 0)
		return r;
	digest = manifest_digest(&manifest);
	if (!digest_equal(&digest, &row->manifest))
		return diag_set(diag, EBADMSG, "site %s: masks/%s is not what version %u had",
			row->site, name, row->version);
	*ret_manifest = manifest;
	manifest = (struct manifest){ 0 };
	return 0;
}

/* All of them or none: a round over other images is another round. */
static int check_images(struct state *state, int64_t id, const struct version_row *row,
	const struct manifest *manifest, int64_t *ret_last_id, struct diag *diag)
{
	char first[DIGEST_HEX_CHARS + 1] = "";
	sqlite3_stmt *statement;
	uint32_t n_gone = 0;
	int r = 0;

	*ret_last_id = 0;
	for (uint32_t i = 0; i < manifest->n; i++) {
		r = statement_get(
			state, &statement, SQL_IMAGE_FIND, "ih", id, &manifest->entries[i].hash);
		if (r >= 0)
			r = statement_step(state, statement);
		if (r < 0)
			return r;
		if (r == 0) {
			if (n_gone++ == 0)
				digest_to_hex(&manifest->entries[i].hash, first);
			continue;
		}
		if (sqlite3_column_int64(statement, 0) > *ret_last_id)
			*ret_last_id = sqlite3_column_int64(statement, 0);
		(void)sqlite3_reset(statement);
	}
	if (n_gone > 0)
		return diag_set(diag, ENODATA,
			"version %u of site %s was learnt from %u images, of which %u are gone, "
			"the first %s",
			row->version, row->site, manifest->n, n_gone, first);
	return 0;
}

static int make_folder(struct state *state, const char *site)
{
	char path[96];
	int r;

	(void)snprintf(path, sizeof(path), "sites/%.64s/again", site);
	r = sweep_tree(state->dir_fd, path);
	if (r < 0)
		return r;
	return mkdirat(state->dir_fd, path, 0750) < 0 ? -errno : 0;
}

static int hold_images(
	struct state *state, const struct version_row *row, int64_t id, struct diag *diag)
{
	_cleanup_(manifest_done) struct manifest manifest = { 0 };
	int64_t last_id;
	int r;

	r = read_manifest(state, row, &manifest, diag);
	if (r >= 0)
		r = check_images(state, id, row, &manifest, &last_id, diag);
	if (r < 0)
		return r;
	return statement_run(state, SQL_SITE_HOLD_IMAGES, "ii", last_id, id);
}

static int begin(struct state *state, const char *site, uint32_t version,
	struct version_row *ret_row, struct diag *diag)
{
	sqlite3_stmt *statement;
	int64_t id;
	int r;

	r = site_id(state, site, &id);
	if (r >= 0)
		r = state_version_get(state, site, version, ret_row);
	if (r < 0)
		return diag_set(diag, -r, "site %s has no version %u", site, version);
	if (ret_row->state == VERSION_LEARNING || ret_row->state == VERSION_FAILED)
		return diag_set(diag, ENODATA, "version %u of site %s is %s", version, site,
			version_state_name(ret_row->state));
	if (!ret_row->recipe_text[0] || !ret_row->prep_text[0])
		return diag_set(diag, ENODATA,
			"version %u of site %s was imported, or learnt before recipes were kept",
			version, site);
	r = statement_get(state, &statement, SQL_VERSION_RUNNING, "i", id);
	if (r >= 0)
		r = statement_step(state, statement);
	if (r > 0) {
		(void)sqlite3_reset(statement);
		return diag_set(
			diag, EBUSY, "site %s is learning: wait for the end of its round", site);
	}
	return r < 0 ? r : hold_images(state, ret_row, id, diag);
}

int state_reproduce_begin(struct state *state, const char *site, uint32_t version,
	struct version_row *ret_row, struct diag *diag)
{
	int r;

	r = make_folder(state, site);
	if (r < 0)
		return diag_set(diag, -r, "site %s: cannot make a folder: %s", site, strerror(-r));
	r = state_begin(state);
	if (r < 0)
		return r;
	return state_end(state, begin(state, site, version, ret_row, diag));
}

/* A round that was begun meanwhile holds its own, as this one does beyond a round's end. */
static int let_go(struct state *state, const char *site)
{
	int64_t id;
	int r = site_id(state, site, &id);

	return r < 0 ? r : statement_run(state, SQL_SITE_HOLD_IMAGES, "ii", (int64_t)0, id);
}

int state_reproduce_end(struct state *state, const char *site)
{
	char path[96];
	int r;

	(void)snprintf(path, sizeof(path), "sites/%.64s/again", site);
	(void)sweep_tree(state->dir_fd, path);
	r = state_begin(state);
	return r < 0 ? r : state_end(state, let_go(state, site));
}
