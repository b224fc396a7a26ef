/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <string.h>
#include <strings.h>

#include "base/blob.h"
#include "base/digest.h"
#include "item.h"

enum { MAX_BYTES = 64 << 20 };

struct source_folder {
	struct source base;
	FTS *walk;
	enum folder_part part;
	uint32_t index;
};

static int by_name(const FTSENT **a, const FTSENT **b)
{
	return strcmp((*a)->fts_name, (*b)->fts_name);
}

static bool is_image_name(const char *name)
{
	static const char *const endings[] = { ".png", ".jpg", ".jpeg", ".pgm", ".ppm" };
	const char *dot = strrchr(name, '.');

	for (size_t i = 0; dot && i < ARRAY_SIZE(endings); i++)
		if (strcasecmp(dot, endings[i]) == 0)
			return true;
	return false;
}

/* The next file of the walk that is an image by its name, or NULL with errno 0 at the end. */
static FTSENT *next_file(struct source_folder *folder)
{
	FTSENT *entry;

	while ((entry = fts_read(folder->walk))) {
		bool is_hidden = entry->fts_name[0] == '_' || entry->fts_name[0] == '.';

		/* The folder that was named is walked whatever its name is. */
		if (entry->fts_level > 0 && is_hidden)
			(void)fts_set(folder->walk, entry, FTS_SKIP);
		else if (entry->fts_info == FTS_F && is_image_name(entry->fts_name))
			return entry;
	}
	return NULL;
}

static int folder_next(struct source *source, struct item *ret_item)
{
	struct source_folder *folder = (struct source_folder *)source;
	struct item item = { .format = ITEM_FILE };
	FTSENT *entry;
	int r;

	for (;;) {
		errno = 0;
		entry = next_file(folder);
		if (!entry)
			return -errno;
		r = blob_read(AT_FDCWD, entry->fts_accpath, MAX_BYTES, &item.data, &item.n_bytes);
		if (r < 0)
			return r;
		if (folder->part == FOLDER_ALL ||
			digest_is_held(item.data, item.n_bytes) == (folder->part == FOLDER_HELD))
			break;
		item_done(&item);
	}
	/* Names repeat between folders: the number makes them one of a kind. */
	(void)snprintf(item.part_id, sizeof(item.part_id), "%06u-%.80s", folder->index++,
		entry->fts_namelen > 80 ? entry->fts_name + entry->fts_namelen - 80
					: entry->fts_name);
	*ret_item = item;
	return 1;
}

static void folder_free(struct source *source)
{
	(void)fts_close(((struct source_folder *)source)->walk);
	free(source);
}

int source_folder_new(struct source **ret_source, const char *dir, enum folder_part part)
{
	char *const paths[] = { (char *)(uintptr_t)dir, NULL };
	struct source_folder *folder;

	if (access(dir, R_OK | X_OK) < 0)
		return -errno;
	folder = calloc(1, sizeof(*folder));
	if (!folder)
		return -ENOMEM;
	folder->base = (struct source){ folder_next, folder_free };
	folder->part = part;
	folder->walk = fts_open(paths, FTS_LOGICAL | FTS_NOCHDIR, by_name);
	if (!folder->walk) {
		int r = -errno;

		free(folder);
		return r;
	}
	*ret_source = &folder->base;
	return 0;
}
