/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <string.h>

#include "site/gate.h"

/* Limits, those of a running round in gate.h, from what was measured on real and rendered sets
 * (design.md section 5). Good masks raised the margin (2.2 to 2.9, 1.38 to 1.9-2.0, 1.15 to 1.5-1.7)
 * and kept .57 to .92 of the frozen effective rank; ruined ones had a margin of .2 to .7 of the
 * frozen one and .13 to .54 of the rank: the floor is for a collapse that the margin does not see.
 * Good masks kept .993 to .999 of the weights. The last step's loss says little: it was .86 and 1.01
 * for two good masks of one set (the head comes to rest and the queue catches up), 1.09 for one that
 * had flipped too much. */
#define GATE_MIN_HELD 16u /* below this two-view retrieval is a matter of luck */
/* Only a collapse goes so far, others fall by their margin: on NEU a good mask had .97 of ln K and
 * shared .59 of its neighbours with the frozen model; overtrained ones had .81 to .97 and .26 to .30,
 * ones ruined by RMS-divided SGD .54 to .84 and .19 to .30, collapsed ones .28 and more. By chance
 * it is .04. */
#define GATE_MIN_ENTROPY .50f
#define GATE_MIN_NEIGHBOURS .10f

__attribute__((format(printf, 2, 3))) static void hold(
	struct version_row *row, const char *format, ...)
{
	size_t n = strlen(row->reasons);
	va_list values;

	row->passed = false;
	if (n > 0 && n + 1 < sizeof(row->reasons))
		row->reasons[n++] = '\n';
	va_start(values, format);
	(void)vsnprintf(row->reasons + n, sizeof(row->reasons) - n, format, values);
	va_end(values);
}

/* Comparisons are written so that a figure that is not a number holds the candidate. */
static void decide_on_views(struct version_row *row)
{
	const struct judgement_row *frozen = &row->frozen, *candidate = &row->candidate;
	float rank_floor = GATE_RANK_SHARE * frozen->effective_rank;
	float retrieval_room = GATE_SURE * candidate->retrieval_error;
	float margin_room = GATE_SURE * candidate->margin_error;

	if (frozen->n < GATE_MIN_HELD || candidate->n < GATE_MIN_HELD) {
		hold(row, "too few held-out images to judge: %u, at least %u are needed",
			candidate->n < frozen->n ? candidate->n : frozen->n, GATE_MIN_HELD);
		return;
	}
	/* Where one class looks all alike, nobody can tell its images' views from each other, and a
	 * mask that draws the class together need not find more twins. It must not lose them. */
	if (!(candidate->retrieval + retrieval_room >= frozen->retrieval))
		hold(row,
			"two-view retrieval %.3f is below the frozen model's %.3f by more than "
			"%.3f",
			(double)candidate->retrieval, (double)frozen->retrieval,
			(double)retrieval_room);
	if (!(candidate->margin - margin_room > frozen->margin))
		hold(row,
			"two-view margin %.3f is not above the frozen model's %.3f by more than "
			"%.3f",
			(double)candidate->margin, (double)frozen->margin, (double)margin_room);
	if (!(candidate->effective_rank >= rank_floor))
		hold(row, "effective rank %.1f is below %.1f (%.2f of the frozen model's %.1f)",
			(double)candidate->effective_rank, (double)rank_floor,
			(double)GATE_RANK_SHARE, (double)frozen->effective_rank);
}

static void decide_on_collapse(struct version_row *row)
{
	const struct judgement_row *candidate = &row->candidate;

	if (candidate->has_entropy && !(candidate->entropy >= GATE_MIN_ENTROPY))
		hold(row,
			"prototype entropy %.3f is below %.2f of ln K: it sees few kinds of image",
			(double)candidate->entropy, (double)GATE_MIN_ENTROPY);
	if (candidate->has_neighbours && !(candidate->neighbours >= GATE_MIN_NEIGHBOURS))
		hold(row,
			"neighbours shared with the champion %.3f are below %.2f: nothing is left",
			(double)candidate->neighbours, (double)GATE_MIN_NEIGHBOURS);
}

static void decide_on_accuracy(struct version_row *row, unsigned shots, double frozen,
	double candidate, double lo, double hi)
{
	if (!(hi >= -GATE_HARM))
		hold(row,
			"few-shot accuracy with %u a class %.3f is surely below the frozen model's "
			"%.3f (by %.3f to %.3f, %u labelled images of %u classes)",
			shots, candidate, frozen, -hi, -lo, row->shots.n, row->shots.n_classes);
}

static void decide_on_labels(struct version_row *row)
{
	const struct shots_row *shots = &row->shots;

	if (shots->n == 0)
		return;
	decide_on_accuracy(row, 1, shots->frozen1, shots->candidate1, shots->lo1, shots->hi1);
	decide_on_accuracy(row, 5, shots->frozen5, shots->candidate5, shots->lo5, shots->hi5);
}

static void decide_on_learning(struct version_row *row)
{
	if (row->loss_ratio != 0 && !(row->loss_ratio < GATE_MAX_LOSS))
		hold(row, "loss ratio %.3f is not below %.2f: learning came apart", row->loss_ratio,
			GATE_MAX_LOSS);
	if (row->n_flips == 0)
		hold(row, "no bit has moved (0 of %llu)", (unsigned long long)row->n_elements);
	if (!(row->density >= GATE_MIN_DENSITY))
		hold(row, "density %.4f is below %.2f", row->density, GATE_MIN_DENSITY);
	if (!(row->lowest_density >= GATE_MIN_LOWEST))
		hold(row, "the lowest density of a tensor %.4f is below %.2f", row->lowest_density,
			GATE_MIN_LOWEST);
}

void gate_decide(struct version_row *row)
{
	row->passed = true;
	row->reasons[0] = 0;
	decide_on_views(row);
	decide_on_collapse(row);
	decide_on_labels(row);
	decide_on_learning(row);
}
