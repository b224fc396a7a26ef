/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_ROWS_H
#define KAMEN_SERVE_ROWS_H

#include "kamen.pb-c.h"
#include "serve/sites.h"

#define ROW_MAX_REASONS 16

/** A gate's verdict as a message, with the memory behind it. */
struct gate_message {
	Kamen__Gate gate;
	Kamen__Judgement frozen, candidate;
	char *reasons[ROW_MAX_REASONS];
	char text[sizeof(((struct version_row *)0)->reasons)];
};

struct mask_message {
	Kamen__Mask mask;
	struct gate_message gate;
	Kamen__Shadow shadow;
	Kamen__Figure figures[VERSION_MAX_FIGURES], *figures_list[VERSION_MAX_FIGURES];
};

struct site_message {
	Kamen__Site site;
	Kamen__KeyValue settings[CONFIG_MAX_SITE_KEYS], set_by[CONFIG_MAX_SITE_KEYS];
	Kamen__KeyValue *settings_list[CONFIG_MAX_SITE_KEYS], *set_by_list[CONFIG_MAX_SITE_KEYS];
	char values[CONFIG_MAX_SITE_KEYS][256], owners[CONFIG_MAX_SITE_KEYS][288];
	struct digest prep;
};

/** Fill a message from a row; the row must outlive it. */
void gate_message_fill(struct gate_message *out, const struct version_row *row);
void mask_message_fill(struct mask_message *out, const struct version_row *row);
void site_message_fill(struct site_message *out, const struct site *site,
	const struct site_row *row, bool learning);
/** That without the settings: what changes from second to second. */
void site_message_fill_live(struct site_message *out, const struct site *site,
	const struct site_row *row, bool learning);

#endif
