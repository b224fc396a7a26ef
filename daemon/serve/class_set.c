/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/class_set.h"

#include <errno.h>
#include <math.h>

void class_set_free(struct class_set *set)
{
	if (!set)
		return;
	free(set->names);
	free(set->prototypes);
	free(set);
}

static int make_room(struct class_set *set, const struct features *features)
{
	set->n = features->n_classes;
	set->dim = features->dim;
	set->names = calloc(set->n, sizeof(*set->names));
	set->prototypes = calloc((size_t)set->n * set->dim, sizeof(*set->prototypes));
	return set->names && set->prototypes ? 0 : -ENOMEM;
}

int class_set_new(struct class_set **ret_set, const struct features *features)
{
	_cleanup_(class_set_freep) struct class_set *set = NULL;
	uint32_t counts[CLASS_MAX] = { 0 };
	int r;

	if (features->n_classes == 0)
		return -ENODATA;
	set = calloc(1, sizeof(*set));
	if (!set)
		return -ENOMEM;
	r = make_room(set, features);
	if (r < 0)
		return r;
	memcpy(set->names, features->names, set->n * sizeof(*set->names));
	for (uint32_t i = 0; i < features->n; i++) {
		const struct feature_row *row = &features->rows[i];
		const float *from = features->values + (size_t)i * set->dim;
		float *to = set->prototypes + (size_t)row->class * set->dim;

		if (!row->is_known || row->class == FEATURE_OF_LINE)
			continue;
		counts[row->class]++;
		for (uint32_t k = 0; k < set->dim; k++)
			to[k] += from[k];
	}
	for (uint32_t i = 0; i < set->n; i++)
		if (counts[i] == 0)
			return -ENODATA;
	cosine_normalise(set->prototypes, set->prototypes, set->n, set->dim);
	*ret_set = TAKE_PTR(set);
	return 0;
}

uint32_t class_set_judge(const struct class_set *set, const float *feature, float *ret_score)
{
	float length = sqrtf(cosine_dot(feature, feature, set->dim)), best = -2;
	uint32_t at = 0;

	for (uint32_t i = 0; i < set->n; i++) {
		float dot = cosine_dot(set->prototypes + (size_t)i * set->dim, feature, set->dim);

		dot = length > 0 && isfinite(length) ? dot / length : 0;
		if (dot > best) {
			best = dot;
			at = i;
		}
	}
	*ret_score = best;
	return at;
}
