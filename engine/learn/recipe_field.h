/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_RECIPE_FIELD_H
#define KAMEN_LEARN_RECIPE_FIELD_H

#include <stddef.h>

#include "learn/recipe.h"

enum recipe_kind {
	RECIPE_SEED,   /* uint64_t, any */
	RECIPE_COUNT,  /* uint32_t */
	RECIPE_REAL,   /* float */
	RECIPE_SWITCH, /* bool: on or off */
	RECIPE_CHOICE, /* an enum: one of choices, by their order */
};

/** One field of a recipe. Range, text and digest go by its row. */
struct recipe_field {
	const char *name; /* in the struct and in the text */
	enum recipe_kind kind;
	size_t offset;
	double lo, hi;       /* of COUNT and REAL, whatever the model */
	const char *choices; /* separated by '|' */
};

/** In the order of the text; a NULL name ends it. */
extern const struct recipe_field recipe_fields[];

/** @return 0, or -EINVAL with field and range in diag */
int recipe_field_check(
	const struct recipe_field *field, const struct recipe *recipe, struct diag *diag);

#endif
