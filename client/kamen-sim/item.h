/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SIM_ITEM_H
#define KAMEN_SIM_ITEM_H

#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"
#include "part.h"

enum item_format {
	ITEM_RAW, /* dense pixels */
	ITEM_PNG,
	ITEM_JPEG,
	ITEM_FILE, /* the bytes of a file of the folder, as they are */
};

/** One image on its way to a sink. Owns data. */
struct item {
	void *data;
	size_t n_bytes;
	enum item_format format;
	uint32_t width, height, n_channels; /* of ITEM_RAW */
	char part_id[96];                   /* also the file's name, without directory */
	bool is_part;                       /* rendered: part says what is known about it */
	struct part part;
};

static inline void item_done(struct item *item)
{
	free(item->data);
	item->data = NULL;
}

/* ---- Where images come from */

/** @return 1: *ret_item is set, 0: no more, or a negative errno */
struct source {
	int (*next)(struct source *source, struct item *ret_item);
	void (*free)(struct source *source);
};

struct source_parts_options {
	uint64_t seed;
	uint32_t start, px, n_channels, defects_ppm;
	enum item_format format;
};
int source_parts_new(struct source **ret_source, const struct source_parts_options *options);

enum folder_part { FOLDER_ALL, FOLDER_LEARN, FOLDER_HELD };
/** Every image file below dir, sorted by path; names that begin with '_' or '.' are skipped. */
int source_folder_new(struct source **ret_source, const char *dir, enum folder_part part);

/* ---- Where they go */

struct sink {
	/** 0, -ETIMEDOUT: nobody takes it, or a negative errno. The item stays the caller's. */
	int (*put)(struct sink *sink, const struct item *item);
	/** Waits, within bounds, until all is delivered. */
	int (*finish)(struct sink *sink);
	void (*free)(struct sink *sink);
};

/** ZeroMQ PUSH to a daemon's PULL; it blocks while the daemon's queue is full. */
int sink_zmq_new(
	struct sink **ret_sink, const char *endpoint, const char *sender, uint32_t timeout_ms);
/** A spool folder: temporary name, then rename. */
int sink_spool_new(struct sink **ret_sink, const char *dir);
/** DIR/KIND/part-N.png and DIR/_truth.tsv; rendered parts only. */
int sink_classes_new(struct sink **ret_sink, const char *dir);

static inline void source_freep(struct source **source)
{
	if (*source)
		(*source)->free(*source);
}

static inline void sink_freep(struct sink **sink)
{
	if (*sink)
		(*sink)->free(*sink);
}

#endif
