/* SPDX-License-Identifier: Apache-2.0 */
#include "site/classes.h"

#include <errno.h>
#include <string.h>

static bool is_name(const char *name)
{
	size_t n = strlen(name);

	for (size_t i = 0; i < n; i++)
		if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f)
			return false;
	return n > 0 && n < CLASSES_NAME_BYTES;
}

static int grow(struct classes *classes)
{
	uint32_t size = classes->size ? 2 * classes->size : 16;
	uint32_t *order = realloc(classes->order, size * sizeof(*order));
	char(*names)[CLASSES_NAME_BYTES];

	if (!order)
		return -ENOMEM;
	classes->order = order;
	names = realloc(classes->names, size * sizeof(*names));
	if (!names)
		return -ENOMEM;
	classes->names = names;
	classes->size = size;
	return 0;
}

/* Where in order the name stands, or would. */
static uint32_t search(const struct classes *classes, const char *name)
{
	uint32_t lo = 0, hi = classes->n;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (strcmp(classes->names[classes->order[mid]], name) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

int classes_add(struct classes *classes, const char *name, uint32_t *ret_index)
{
	uint32_t at = search(classes, name);
	int r;

	if (at < classes->n && strcmp(classes->names[classes->order[at]], name) == 0) {
		*ret_index = classes->order[at];
		return 0;
	}
	if (!is_name(name))
		return -EINVAL;
	if (classes->n == CLASSES_MAX)
		return -E2BIG;
	if (classes->n == classes->size) {
		r = grow(classes);
		if (r < 0)
			return r;
	}
	memmove(classes->order + at + 1, classes->order + at,
		(classes->n - at) * sizeof(*classes->order));
	classes->order[at] = classes->n;
	(void)snprintf(classes->names[classes->n], CLASSES_NAME_BYTES, "%s", name);
	*ret_index = classes->n++;
	return 0;
}

void classes_done(struct classes *classes)
{
	free(classes->names);
	free(classes->order);
	*classes = (struct classes){ 0 };
}

uint32_t classes_number(
	const struct classes *classes, const uint32_t *counts, uint32_t n_min, uint32_t *numbers)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < classes->n; i++) {
		uint32_t class = classes->order[i];

		numbers[class] = counts[class] >= n_min ? n++ : CLASSES_NONE;
	}
	return n;
}
