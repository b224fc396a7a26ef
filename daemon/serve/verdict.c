/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/verdict.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

void verdict_judge(struct answer *answer, const float *embedding, const struct serving *serving)
{
	answer->novelty = NAN;
	answer->distance = NAN;
	answer->verdict = SHM_UNKNOWN;
	if (!serving->reference)
		return;
	answer->distance = reference_distance(serving->reference, embedding);
	answer->novelty = reference_novelty(serving->reference, answer->distance);
	if (isnan(answer->novelty))
		return;
	answer->verdict = answer->novelty >= serving->threshold ? SHM_NG : SHM_OK;
}

static void classify(struct answer *answer, const float *feature, const struct serving *serving)
{
	struct class_answer said;

	if (!serving->classes)
		return;
	said = class_set_judge(serving->classes, feature);
	answer->score = said.confidence;
	answer->unknown = said.unknown;
	(void)snprintf(answer->label, sizeof(answer->label), "%s", said.name);
}

void verdict_write(struct request *request, const float *embedding, const float *feature,
	const struct serving *serving)
{
	const bool of_feature = request->wire.flags & SHM_WANT_FEATURE;
	struct answer *answer = &request->answer;

	answer->space = serving->space;
	if (of_feature || request->wire.flags & SHM_WANT_EMBEDDING) {
		answer->n_embedding = of_feature ? embedding_dim(serving) : serving->set->n_out;
		memcpy(request->values, of_feature ? feature : embedding,
			answer->n_embedding * sizeof(float));
	}
	classify(answer, feature, serving);
	verdict_judge(answer, embedding, serving);
}
