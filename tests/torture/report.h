/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_TORTURE_REPORT_H
#define KAMEN_TORTURE_REPORT_H

#include "victim.h"
#include "world.h"

/** What a run came to. */
struct outcome {
	bool is_dead, is_unsound;
	int exit_status; /* of the daemon, when it was told to stop */
	struct holding before, after;
	double seconds, storm_seconds;
	double max_ratio, max_over_bare; /* of honest p99; 0: not judged */
	unsigned n_liars;
};

/** Prints it. Whether everything held. */
bool report(struct world *world, const struct outcome *outcome, bool as_json);

#endif
