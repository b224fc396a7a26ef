/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/blur.h"
#include "learn/recipe_field.h"

#define SEED(name) \
	{ \
#name, RECIPE_SEED, offsetof(struct recipe, name), 0, 0, NULL \
	}
#define COUNT(name, lo, hi) \
	{ \
#name, RECIPE_COUNT, offsetof(struct recipe, name), lo, hi, NULL \
	}
#define REAL(name, lo, hi) \
	{ \
#name, RECIPE_REAL, offsetof(struct recipe, name), lo, hi, NULL \
	}
#define SWITCH(name) \
	{ \
#name, RECIPE_SWITCH, offsetof(struct recipe, name), 0, 0, NULL \
	}
#define CHOICE(name, choices) \
	{ \
#name, RECIPE_CHOICE, offsetof(struct recipe, name), 0, 0, choices \
	}

const struct recipe_field recipe_fields[] = {
	SEED(seed),
	CHOICE(objective, "swav|supervised|micm|masksub|hpm"),
	COUNT(steps, 1, 100000),
	COUNT(batch, 2, 1024),
	CHOICE(precision, "f32|bf16"),
	COUNT(at_once, 0, 1024),
	COUNT(n_prototypes, 2, 65536),
	COUNT(head_dim, 2, 65536),
	COUNT(large_px, BLUR_MIN_PX, 1024),
	COUNT(small_px, BLUR_MIN_PX, 1024),
	COUNT(n_small, 0, 8),
	COUNT(queue, 0, 65536),
	CHOICE(optimiser, "adam|sgd"),
	CHOICE(mask, "threshold|topk"),
	REAL(keep, .001, 1),
	REAL(score_init, -1e6, 1e6),
	REAL(score_threshold, -1e6, 1e6),
	REAL(score_spread, 0, 1),
	REAL(score_lr, 0, 1e6),
	REAL(warm_up, 0, 1),
	REAL(head_lr, 0, 100),
	COUNT(first_block, 0, 1023),
	COUNT(last_block, 0, 1023),
	COUNT(layers, 1, RECIPE_ALL_LAYERS),
	REAL(share, 1e-6f, 1),
	REAL(min_area, .05f, 1),
	REAL(jitter, 0, 1),
	REAL(hue, 0, .5),
	REAL(blur, 0, 1),
	REAL(solarize, 0, 1),
	REAL(temperature, .01f, 10),
	/* exp(1 / eps) must stay a float. */
	REAL(sinkhorn_eps, .02f, 10),
	COUNT(sinkhorn_iterations, 1, 100),
	COUNT(experts, 0, CASCADE_MAX_EXPERTS),
	CHOICE(cascade, "conditional|unconditional"),
	SWITCH(alpha_term),
	COUNT(micm_hidden, 2, 8192),
	SWITCH(micm_warm),
	SWITCH(micm_balance),
	SWITCH(micm_normalise),
	REAL(micm_class, 0, 100),
	REAL(micm_patch, 0, 100),
	REAL(micm_pixel, 0, 100),
	REAL(micm_pseudo, 0, 100),
	REAL(micm_second, 0, 1),
	REAL(micm_mask, 0, .9),
	REAL(micm_teacher, 0, 1),
	REAL(micm_first_temperature, .01f, 10),
	REAL(micm_last_temperature, .01f, 10),
	REAL(micm_rise, 0, 1),
	REAL(micm_lr, 0, 1),
	REAL(micm_weight_decay, 0, 1),
	CHOICE(drive, "scores|weights"),
	REAL(weight_lr, 0, 10),
	REAL(weight_lr_end, 0, 10),
	REAL(weight_decay, 0, 10),
	REAL(weight_decay_end, 0, 10),
	REAL(weight_beta2, 0, .9999999f),
	REAL(weight_clip, 0, 1e6),
	REAL(masksub_ratio, 0, .95f),
	REAL(masksub_drop, 0, .9f),
	REAL(masksub_path, 0, .9f),
	CHOICE(masksub_form, "sub|masked|twice"),
	REAL(hpm_ratio, .01f, .99f),
	REAL(hpm_hard_from, 0, 1),
	REAL(hpm_hard_to, 0, 1),
	CHOICE(hpm_target, "pixels|normalised|features"),
	CHOICE(hpm_ranks, "relative|absolute"),
	CHOICE(hpm_asked, "kept|whole"),
	COUNT(hpm_width, 32, 512),
	COUNT(hpm_depth, 1, 8),
	REAL(hpm_lr, 0, 1),
	REAL(hpm_decay, 0, 1),
	REAL(hpm_ema, 0, 1),
	{ NULL, RECIPE_SEED, 0, 0, 0, NULL },
};

/* The i-th choice, or NULL. */
static const char *choice(const char *choices, uint32_t i, size_t *ret_n)
{
	for (; i > 0; i--) {
		choices = strchr(choices, '|');
		if (!choices)
			return NULL;
		choices++;
	}
	*ret_n = strcspn(choices, "|");
	return choices;
}

static const void *at(const struct recipe_field *field, const struct recipe *recipe)
{
	return (const char *)recipe + field->offset;
}

static uint32_t count_of(const struct recipe_field *field, const struct recipe *recipe)
{
	uint32_t value;

	memcpy(&value, at(field, recipe), sizeof(value));
	return value;
}

static double real_of(const struct recipe_field *field, const struct recipe *recipe)
{
	float value;

	memcpy(&value, at(field, recipe), sizeof(value));
	return value;
}

int recipe_field_check(
	const struct recipe_field *field, const struct recipe *recipe, struct diag *diag)
{
	double value;
	size_t n;

	switch (field->kind) {
	case RECIPE_COUNT:
		value = count_of(field, recipe);
		break;
	case RECIPE_REAL:
		value = real_of(field, recipe);
		break;
	case RECIPE_CHOICE:
		if (choice(field->choices, count_of(field, recipe), &n))
			return 0;
		return diag_set(diag, EINVAL, "recipe: %s = %u, not one of %s", field->name,
			count_of(field, recipe), field->choices);
	default:
		return 0;
	}
	/* The other way round a NaN would pass. */
	if (value >= field->lo && value <= field->hi)
		return 0;
	return diag_set(diag, EINVAL, "recipe: %s = %g, not %g..%g", field->name, value, field->lo,
		field->hi);
}

/* 9 digits give a float back to the bit. */
static int print_value(
	const struct recipe_field *field, const struct recipe *recipe, char *text, size_t n)
{
	const char *name;
	size_t n_name = 0;
	uint64_t seed;
	bool on;

	switch (field->kind) {
	case RECIPE_SEED:
		memcpy(&seed, at(field, recipe), sizeof(seed));
		return snprintf(text, n, "%llu", (unsigned long long)seed);
	case RECIPE_COUNT:
		return snprintf(text, n, "%u", count_of(field, recipe));
	case RECIPE_REAL:
		return snprintf(text, n, "%.9g", real_of(field, recipe));
	case RECIPE_SWITCH:
		memcpy(&on, at(field, recipe), sizeof(on));
		return snprintf(text, n, "%s", on ? "on" : "off");
	case RECIPE_CHOICE:
		name = choice(field->choices, count_of(field, recipe), &n_name);
		return snprintf(text, n, "%.*s", (int)n_name, name ? name : "");
	}
	return 0;
}

struct recipe_text recipe_text(const struct recipe *recipe)
{
	struct recipe_text text = { "" };
	size_t used = 0;

	for (const struct recipe_field *field = recipe_fields; field->name; field++) {
		char value[32];

		(void)print_value(field, recipe, value, sizeof(value));
		used += (size_t)snprintf(text.text + used, sizeof(text.text) - used, "%s%s=%s",
			used ? " " : "", field->name, value);
		if (used >= sizeof(text.text))
			break;
	}
	return text;
}

static int read_number(const struct recipe_field *field, struct recipe *recipe, const char *text,
	struct diag *diag)
{
	char *end;
	double value = strtod(text, &end);
	float real = (float)value;
	uint32_t count;

	if (end == text || *end)
		return diag_set(
			diag, EINVAL, "recipe: %s = '%.32s', not a number", field->name, text);
	if (field->kind == RECIPE_REAL) {
		memcpy((char *)recipe + field->offset, &real, sizeof(real));
		return 0;
	}
	if (!(value >= 0 && value <= UINT32_MAX && value == floor(value)))
		return diag_set(diag, EINVAL, "recipe: %s = '%.32s', not a whole number",
			field->name, text);
	count = (uint32_t)value;
	memcpy((char *)recipe + field->offset, &count, sizeof(count));
	return 0;
}

static int read_seed(const struct recipe_field *field, struct recipe *recipe, const char *text,
	struct diag *diag)
{
	char *end;
	unsigned long long seed;

	errno = 0;
	seed = strtoull(text, &end, 10);
	if (end == text || *end || errno || *text == '-')
		return diag_set(diag, EINVAL, "recipe: %s = '%.32s', not a whole number",
			field->name, text);
	memcpy((char *)recipe + field->offset, &(uint64_t){ seed }, sizeof(uint64_t));
	return 0;
}

static int read_choice(const struct recipe_field *field, struct recipe *recipe, const char *text,
	struct diag *diag)
{
	const char *name;
	size_t n = 0;

	for (uint32_t i = 0; (name = choice(field->choices, i, &n)); i++)
		if (strlen(text) == n && memcmp(text, name, n) == 0) {
			memcpy((char *)recipe + field->offset, &i, sizeof(i));
			return 0;
		}
	return diag_set(diag, EINVAL, "recipe: %s = '%.32s', not one of %s", field->name, text,
		field->choices);
}

static int read_switch(const struct recipe_field *field, struct recipe *recipe, const char *text,
	struct diag *diag)
{
	bool on = strcmp(text, "on") == 0;

	if (!on && strcmp(text, "off") != 0)
		return diag_set(
			diag, EINVAL, "recipe: %s = '%.32s', not on or off", field->name, text);
	memcpy((char *)recipe + field->offset, &on, sizeof(on));
	return 0;
}

int recipe_set(struct recipe *recipe, const char *name, const char *value, struct diag *diag)
{
	const struct recipe_field *field = recipe_fields;
	struct recipe changed = *recipe;
	int r;

	while (field->name && strcmp(field->name, name) != 0)
		field++;
	if (!field->name)
		return diag_set(diag, EINVAL, "recipe: there is no '%.32s'", name);
	if (field->kind == RECIPE_SEED)
		r = read_seed(field, &changed, value, diag);
	else if (field->kind == RECIPE_SWITCH)
		r = read_switch(field, &changed, value, diag);
	else if (field->kind == RECIPE_CHOICE)
		r = read_choice(field, &changed, value, diag);
	else
		r = read_number(field, &changed, value, diag);
	if (r == 0)
		r = recipe_field_check(field, &changed, diag);
	if (r < 0)
		return r;
	*recipe = changed;
	return 0;
}

int recipe_read(struct recipe *recipe, const char *text, struct diag *diag)
{
	struct recipe changed = *recipe;
	char word[80];

	while (*(text += strspn(text, " \t"))) {
		size_t n = strcspn(text, " \t");
		char *value;
		int r;

		(void)snprintf(word, sizeof(word), "%.*s", (int)(n < 79 ? n : 79), text);
		value = strchr(word, '=');
		if (!value)
			return diag_set(diag, EINVAL, "recipe: '%s' is not NAME=VALUE", word);
		*value++ = 0;
		r = recipe_set(&changed, word, value, diag);
		if (r < 0)
			return r;
		text += n;
	}
	*recipe = changed;
	return 0;
}

int recipe_read_objective(enum recipe_objective *objective, const char *text, struct diag *diag)
{
	struct recipe asked = { .objective = *objective };
	int r = recipe_read(&asked, text, diag);

	if (r == 0)
		*objective = asked.objective;
	return r;
}
