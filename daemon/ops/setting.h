/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_OPS_SETTING_H
#define KAMEN_OPS_SETTING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine.h"

/*
 * One row of a table of settings: a key, where its value lives in a struct, and what it may be.
 * Everything that reads, writes or explains a setting goes by its row.
 */
enum setting_kind {
	SETTING_TEXT,      /* any text that fits the field */
	SETTING_PATH,      /* absolute path or "" */
	SETTING_ENDPOINT,  /* ZeroMQ, to bind (endpoint.h), or "" */
	SETTING_ENDPOINTS, /* several, with spaces between, or "" */
	SETTING_CPUS,      /* a list of CPUs, cpuset(7); or nothing */
	SETTING_CHOICE,    /* one of choices, separated by '|'; an empty choice allows "" */
	SETTING_ON_OFF,
	SETTING_COUNT,   /* uint32_t */
	SETTING_SECONDS, /* uint32_t; m, h, d multiply by a minute, an hour, a day */
	SETTING_CLOCK,   /* a time of day "HH:MM", or "" */
	SETTING_BYTES,   /* uint64_t; K, M, G multiply by 1024 and its powers */
	SETTING_FLOAT,   /* float */
	SETTING_DOUBLE,  /* double */
	SETTING_FLOAT_3, /* float[3], separated by commas; "" is three zeros: not set */
	SETTING_RECIPE,  /* changes of a recipe: recipe_read() */
	SETTING_CPU,     /* "idle", or a percentage from min to max */
};

struct setting {
	const char *section, *key;
	enum setting_kind kind;
	bool zero; /* 0 is allowed below min, and means: not set */
	size_t offset, size;
	double min, max;
	const char *choices;
};

/** Parses into the field; leaves it alone and returns -EINVAL with key, value, range in diag. */
int setting_set(const struct setting *setting, void *base, const char *value, struct diag *diag);
/** The field as text that setting_set() takes back. -ENOBUFS: it does not fit. */
int setting_get(const struct setting *setting, const void *base, char *ret_value, size_t n_bytes);
/** What the key may be, as text: "0 or 16 to 1024", "on or off". */
void setting_range(const struct setting *setting, char *ret_text, size_t n_bytes);

#endif
