/* SPDX-License-Identifier: Apache-2.0 */
#include "site/state_disk.h"

#include <errno.h>
#include <fcntl.h>

#include "site/state_internal.h"

/* Of the log: SQLite's own measure, and what is too much to wait any longer. */
enum { DUE_PAGES = 1000, TOO_MANY_PAGES = 16 * DUE_PAGES };

struct state_disk {
	struct state *state;
	int log_fd;
	sqlite3 *db; /* a connection of its own, for checkpoints */
	int n_pages;
};

/* In place of SQLite's own, which would write the database at the next commit. */
static int on_commit(void *user, sqlite3 *db, const char *name, int n_pages)
{
	struct state_disk *disk = user;

	disk->n_pages = n_pages;
	if (n_pages >= TOO_MANY_PAGES)
		(void)sqlite3_wal_checkpoint_v2(db, name, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
	return SQLITE_OK;
}

static int open_connection(struct state_disk *disk)
{
	const struct state *state = disk->state;
	char path[300];
	int code;

	(void)snprintf(path, sizeof(path), "%s/state.db", state->dir);
	code = sqlite3_open_v2(path, &disk->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOFOLLOW, NULL);
	if (code == SQLITE_OK)
		code = sqlite3_exec(disk->db, "PRAGMA synchronous = FULL", NULL, NULL, NULL);
	return statement_error(state, code);
}

int state_disk_open(struct state_disk **ret_disk, struct state *state, struct diag *diag)
{
	_cleanup_(state_disk_freep) struct state_disk *disk = calloc(1, sizeof(*disk));
	int r;

	if (!disk)
		return diag_set(diag, ENOMEM, "no memory");
	disk->state = state;
	/* Closing a descriptor of the database itself would end SQLite's locks; the log has none. */
	disk->log_fd = openat(state->dir_fd, "state.db-wal", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	r = disk->log_fd < 0 ? -errno : open_connection(disk);
	if (r < 0)
		return diag_set(diag, -r, "%s/state.db-wal: %s", state->dir, strerror(-r));
	(void)sqlite3_wal_hook(state->db, on_commit, disk);
	state->is_deferred = true;
	*ret_disk = TAKE_PTR(disk);
	return 0;
}

void state_disk_free(struct state_disk *disk)
{
	if (!disk)
		return;
	if (disk->state->is_deferred)
		(void)sqlite3_wal_autocheckpoint(disk->state->db, DUE_PAGES);
	disk->state->is_deferred = false;
	(void)sqlite3_close(disk->db);
	closep(&disk->log_fd);
	free(disk);
}

int state_disk_sync(const struct state_disk *disk)
{
	return fdatasync(disk->log_fd) < 0 ? -errno : 0;
}

int state_disk_checkpoint(struct state_disk *disk)
{
	int code = sqlite3_wal_checkpoint_v2(disk->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);

	return statement_error(disk->state, code);
}

bool state_disk_is_due(const struct state_disk *disk)
{
	return disk->n_pages >= DUE_PAGES;
}
