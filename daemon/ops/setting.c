/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/cpus.h"
#include "ops/endpoint.h"
#include "ops/setting.h"

static bool in_range(const struct setting *s, double x)
{
	return (s->zero && x == 0) || (x >= s->min && x <= s->max);
}

/* strtoull() takes "-1" and leading space; a setting is digits and nothing else. */
static bool parse_digits(const char *text, uint64_t *ret, const char **ret_end)
{
	char *end;

	if (!isdigit((unsigned char)*text))
		return false;
	errno = 0;
	*ret = strtoull(text, &end, 10);
	*ret_end = end;
	return errno == 0;
}

static bool parse_bytes(const char *text, uint64_t *ret)
{
	static const char suffixes[] = "KMG";
	const char *end, *suffix;
	uint64_t x;

	if (!parse_digits(text, &x, &end))
		return false;
	if (*end) {
		suffix = strchr(suffixes, *end);
		if (!suffix || end[1])
			return false;
		for (; suffix >= suffixes; suffix--)
			if (__builtin_mul_overflow(x, 1024, &x))
				return false;
	}
	*ret = x;
	return true;
}

static bool parse_seconds(const char *text, uint64_t *ret)
{
	static const struct {
		char letter;
		uint32_t seconds;
	} units[] = { { 's', 1 }, { 'm', 60 }, { 'h', 3600 }, { 'd', 86400 } };
	const char *end;
	uint64_t x;

	if (!parse_digits(text, &x, &end) || x > UINT32_MAX)
		return false;
	for (size_t i = 0; *end && i < ARRAY_SIZE(units); i++) {
		if (*end != units[i].letter)
			continue;
		*ret = x * units[i].seconds;
		return !end[1];
	}
	*ret = x;
	return !*end;
}

static bool is_clock(const char *text)
{
	if (!*text)
		return true;
	return strlen(text) == 5 && isdigit((unsigned char)text[0]) &&
	       isdigit((unsigned char)text[1]) && text[2] == ':' &&
	       isdigit((unsigned char)text[3]) && isdigit((unsigned char)text[4]) &&
	       strncmp(text, "24", 2) < 0 && text[3] < '6';
}

static bool parse_double(const char *text, double *ret, const char **ret_end)
{
	char *end;
	double x;

	if (!isdigit((unsigned char)*text) && *text != '.' && *text != '-')
		return false;
	x = strtod(text, &end);
	if (end == text || !isfinite(x))
		return false;
	*ret = x;
	*ret_end = end;
	return true;
}

static bool is_choice(const char *choices, const char *value)
{
	size_t n = strlen(value);

	for (const char *c = choices;; c = strchr(c, '|') + 1) {
		if (strncmp(c, value, n) == 0 && (c[n] == '|' || !c[n]))
			return true;
		if (!strchr(c, '|'))
			return false;
	}
}

static bool is_cpu(const struct setting *s, const char *value)
{
	const char *end;
	uint64_t x;

	if (strcmp(value, "idle") == 0)
		return true;
	return *value != '0' && parse_digits(value, &x, &end) && !*end && in_range(s, (double)x);
}

/* Names and ranges; what depends on the model is seen when a round begins. */
static bool is_recipe(const char *value)
{
	struct recipe recipe = { 0 };
	struct diag diag;

	return recipe_read(&recipe, value, &diag) == 0;
}

static bool are_endpoints(const char *value)
{
	char endpoint[ENDPOINT_CHARS];

	while (endpoint_next(&value, endpoint))
		if (endpoint_place(endpoint) == ENDPOINT_NONE)
			return false;
	return true;
}

static bool set_text(const struct setting *s, char *field, const char *value)
{
	bool fits = strlen(value) < s->size, good;
	cpu_set_t cpus;

	for (const char *c = value; *c; c++)
		if (iscntrl((unsigned char)*c))
			return false;
	if (s->kind == SETTING_PATH)
		good = !*value || *value == '/';
	else if (s->kind == SETTING_ENDPOINT)
		good = !*value || endpoint_place(value) != ENDPOINT_NONE;
	else if (s->kind == SETTING_ENDPOINTS)
		good = are_endpoints(value);
	else if (s->kind == SETTING_CHOICE)
		good = is_choice(s->choices, value);
	else if (s->kind == SETTING_CPU)
		good = is_cpu(s, value);
	else if (s->kind == SETTING_CPUS)
		good = !*value || cpus_parse(value, &cpus);
	else if (s->kind == SETTING_RECIPE)
		good = is_recipe(value);
	else if (s->kind == SETTING_CLOCK)
		good = is_clock(value);
	else
		good = true;
	if (fits && good)
		memcpy(field, value, strlen(value) + 1);
	return fits && good;
}

static bool set_on_off(bool *field, const char *value)
{
	if (strcmp(value, "on") != 0 && strcmp(value, "off") != 0)
		return false;
	*field = strcmp(value, "on") == 0;
	return true;
}

static bool set_integer(const struct setting *s, void *field, const char *value)
{
	const char *end;
	uint64_t x;

	if (s->kind == SETTING_BYTES) {
		if (!parse_bytes(value, &x) || !in_range(s, (double)x))
			return false;
		memcpy(field, &x, sizeof(x));
		return true;
	}
	if (s->kind == SETTING_SECONDS) {
		if (!parse_seconds(value, &x))
			return false;
	} else if (!parse_digits(value, &x, &end) || *end) {
		return false;
	}
	if (!in_range(s, (double)x))
		return false;
	*(uint32_t *)field = (uint32_t)x;
	return true;
}

static bool set_real(const struct setting *s, void *field, const char *value)
{
	unsigned n = s->kind == SETTING_FLOAT_3 ? 3 : 1;
	double x[3] = { 0 };
	const char *at = value;

	for (unsigned i = 0; i < n; i++) {
		if (n == 3 && !*value)
			break;
		if (!parse_double(at, &x[i], &at) || !in_range(s, x[i]))
			return false;
		if (*at != (i + 1 < n ? ',' : '\0'))
			return false;
		at += i + 1 < n;
		while (i + 1 < n && *at == ' ')
			at++;
	}
	for (unsigned i = 0; i < n; i++) {
		if (s->kind == SETTING_DOUBLE)
			((double *)field)[i] = x[i];
		else
			((float *)field)[i] = (float)x[i];
	}
	return true;
}

int setting_set(const struct setting *setting, void *base, const char *value, struct diag *diag)
{
	void *field = (char *)base + setting->offset;
	char range[160];
	bool good = false;

	switch (setting->kind) {
	case SETTING_TEXT:
	case SETTING_PATH:
	case SETTING_ENDPOINT:
	case SETTING_ENDPOINTS:
	case SETTING_CHOICE:
	case SETTING_CPU:
	case SETTING_CPUS:
	case SETTING_RECIPE:
	case SETTING_CLOCK:
		good = set_text(setting, field, value);
		break;
	case SETTING_ON_OFF:
		good = set_on_off(field, value);
		break;
	case SETTING_COUNT:
	case SETTING_SECONDS:
	case SETTING_BYTES:
		good = set_integer(setting, field, value);
		break;
	case SETTING_FLOAT:
	case SETTING_DOUBLE:
	case SETTING_FLOAT_3:
		good = set_real(setting, field, value);
		break;
	}
	if (good)
		return 0;
	setting_range(setting, range, sizeof(range));
	return diag_set(
		diag, EINVAL, "%s: '%.100s' is not allowed, only %s", setting->key, value, range);
}

/* The shortest text that reads back as the same number. */
static int print_real(char *text, size_t n_bytes, double x, bool is_float)
{
	for (int digits = 1;; digits++) {
		int n = snprintf(text, n_bytes, "%.*g", digits, x);

		if (digits == 17 ||
			(is_float ? strtof(text, NULL) == (float)x : strtod(text, NULL) == x))
			return n;
	}
}

static int print_float_3(char *text, size_t n_bytes, const float *x)
{
	char one[3][32];

	if (x[0] == 0 && x[1] == 0 && x[2] == 0)
		return snprintf(text, n_bytes, "%s", "");
	for (unsigned i = 0; i < 3; i++)
		(void)print_real(one[i], sizeof(one[i]), x[i], true);
	return snprintf(text, n_bytes, "%s,%s,%s", one[0], one[1], one[2]);
}

int setting_get(const struct setting *setting, const void *base, char *ret_value, size_t n_bytes)
{
	const void *field = (const char *)base + setting->offset;
	char text[288];
	int n = 0;

	switch (setting->kind) {
	case SETTING_TEXT:
	case SETTING_PATH:
	case SETTING_ENDPOINT:
	case SETTING_ENDPOINTS:
	case SETTING_CHOICE:
	case SETTING_CPU:
	case SETTING_CPUS:
	case SETTING_RECIPE:
	case SETTING_CLOCK:
		n = snprintf(text, sizeof(text), "%s", (const char *)field);
		break;
	case SETTING_ON_OFF:
		n = snprintf(text, sizeof(text), "%s", *(const bool *)field ? "on" : "off");
		break;
	case SETTING_COUNT:
	case SETTING_SECONDS:
		n = snprintf(text, sizeof(text), "%u", *(const uint32_t *)field);
		break;
	case SETTING_BYTES:
		n = snprintf(
			text, sizeof(text), "%llu", (unsigned long long)*(const uint64_t *)field);
		break;
	case SETTING_FLOAT:
		n = print_real(text, sizeof(text), *(const float *)field, true);
		break;
	case SETTING_DOUBLE:
		n = print_real(text, sizeof(text), *(const double *)field, false);
		break;
	case SETTING_FLOAT_3:
		n = print_float_3(text, sizeof(text), field);
		break;
	}
	if (n < 0 || (size_t)n >= sizeof(text) || (size_t)n >= n_bytes)
		return -ENOBUFS;
	memcpy(ret_value, text, (size_t)n + 1);
	return 0;
}

static void print_choices(const struct setting *s, char *ret_text, size_t n_bytes)
{
	size_t n = 0;

	for (const char *c = s->choices;; c++) {
		size_t len = strcspn(c, "|");
		const char *joint = n ? " or " : "";
		int written =
			len ? snprintf(ret_text + n, n_bytes - n, "%s%.*s", joint, (int)len, c)
			    : snprintf(ret_text + n, n_bytes - n, "%snothing", joint);

		n += (size_t)written;
		c += len;
		if (!*c || n >= n_bytes)
			return;
	}
}

void setting_range(const struct setting *setting, char *ret_text, size_t n_bytes)
{
	const char *zero = setting->zero ? "0 or " : "";

	switch (setting->kind) {
	case SETTING_TEXT:
		(void)snprintf(ret_text, n_bytes, "a text of at most %zu bytes", setting->size - 1);
		break;
	case SETTING_PATH:
		(void)snprintf(ret_text, n_bytes,
			"an absolute path of at most %zu bytes, or nothing", setting->size - 1);
		break;
	case SETTING_ENDPOINT:
		(void)snprintf(ret_text, n_bytes,
			"ipc:///PATH or tcp://ADDRESS:PORT of at most %zu bytes, or nothing",
			setting->size - 1);
		break;
	case SETTING_ENDPOINTS:
		(void)snprintf(ret_text, n_bytes,
			"ipc:///PATH or tcp://ADDRESS:PORT with spaces between, %zu bytes, or "
			"nothing",
			setting->size - 1);
		break;
	case SETTING_CHOICE:
		print_choices(setting, ret_text, n_bytes);
		break;
	case SETTING_ON_OFF:
		(void)snprintf(ret_text, n_bytes, "on or off");
		break;
	case SETTING_FLOAT_3:
		(void)snprintf(ret_text, n_bytes,
			"three numbers from %.15g to %.15g with commas between, or nothing",
			setting->min, setting->max);
		break;
	case SETTING_RECIPE:
		(void)snprintf(ret_text, n_bytes,
			"NAME=VALUE of RECIPE with spaces between, %zu bytes, or nothing",
			setting->size - 1);
		break;
	case SETTING_CPU:
		(void)snprintf(
			ret_text, n_bytes, "idle or %.15g to %.15g", setting->min, setting->max);
		break;
	case SETTING_CPUS:
		(void)snprintf(ret_text, n_bytes, "CPUs such as 0-3,8, %zu bytes, or nothing",
			setting->size - 1);
		break;
	case SETTING_CLOCK:
		(void)snprintf(ret_text, n_bytes, "a time of day from 00:00 to 23:59, or nothing");
		break;
	case SETTING_SECONDS:
		(void)snprintf(ret_text, n_bytes,
			"%s%.15g to %.15g seconds; m, h, d are minutes, hours, days", zero,
			setting->min, setting->max);
		break;
	case SETTING_COUNT:
	case SETTING_BYTES:
	case SETTING_FLOAT:
	case SETTING_DOUBLE:
		(void)snprintf(
			ret_text, n_bytes, "%s%.15g to %.15g", zero, setting->min, setting->max);
		break;
	}
}
