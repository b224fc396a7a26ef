/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/class_set.h"

#include <errno.h>
#include <math.h>

void class_set_free(struct class_set *set)
{
	if (!set)
		return;
	free(set->names);
	prototypes_free(set->prototypes);
	free(set);
}

/* What is known, without holes. */
struct known {
	float *values;    /* (n + n_line, dim) supports, then the line's */
	uint32_t *labels; /* (n) */
	uint32_t n, n_line;
};

static void known_done(struct known *known)
{
	free(known->values);
	free(known->labels);
}

static int gather(struct known *known, const struct features *features)
{
	size_t n_bytes = features->dim * sizeof(float);
	uint32_t n = 0;

	known->values = malloc((features->n + 1) * n_bytes);
	known->labels = calloc((size_t)features->n + 1, sizeof(*known->labels));
	if (!known->values || !known->labels)
		return -ENOMEM;
	for (uint32_t i = 0; i < features->n; i++) {
		const struct feature_row *row = &features->rows[i];

		if (!row->is_known)
			continue;
		memcpy(known->values + (size_t)n++ * features->dim,
			features->values + (size_t)i * features->dim, n_bytes);
		if (row->class == FEATURE_OF_LINE)
			known->n_line++;
		else
			known->labels[known->n++] = row->class;
	}
	return 0;
}

static int learn(struct class_set *set, const struct known *known, const struct features *features)
{
	int r = prototypes_new(&set->prototypes, known->values, known->labels, known->n,
		features->dim, features->n_classes);

	if (r < 0)
		return r == -EINVAL ? -ENODATA : r;
	return unknown_calibrate(&set->unknown, set->prototypes, known->values, known->labels,
		known->n, known->values + (size_t)known->n * features->dim, known->n_line);
}

int class_set_new(struct class_set **ret_set, const struct features *features)
{
	_cleanup_(class_set_freep) struct class_set *set = NULL;
	_cleanup_(known_done) struct known known = { 0 };
	size_t n_bytes = features->n_classes * sizeof(*features->names);
	int r;

	if (features->n_classes == 0)
		return -ENODATA;
	set = calloc(1, sizeof(*set));
	if (!set)
		return -ENOMEM;
	set->names = malloc(n_bytes);
	if (!set->names)
		return -ENOMEM;
	memcpy(set->names, features->names, n_bytes);
	r = gather(&known, features);
	if (r >= 0)
		r = learn(set, &known, features);
	if (r < 0)
		return r;
	*ret_set = TAKE_PTR(set);
	return 0;
}

struct class_answer class_set_judge(const struct class_set *set, const float *feature)
{
	struct prototype_answer nearest = prototypes_classify(set->prototypes, feature, NULL);
	float unknown = unknown_score(&set->unknown, nearest.distance);

	if (unknown_is(&set->unknown, nearest.distance))
		return (struct class_answer){ "", NAN, unknown };
	return (struct class_answer){ set->names[nearest.class], nearest.confidence, unknown };
}
