/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>

#include "cleanup.h"
#include "control.h"
#include "ctl.h"
#include "output.h"
#include "progress.h"

struct learn_options {
	const char *steps, *seed, *objective, *wait;
};

static int request_fill(const struct ctl *ctl, const struct learn_options *o, Kamen__Learn *learn)
{
	unsigned long long number;

	if (o->steps) {
		if (!number_parse(o->steps, UINT32_MAX, &number) || number == 0)
			return ctl_fail(
				ctl, EXIT_USAGE, "--steps %s: not a number of steps", o->steps);
		learn->has_steps = 1;
		learn->steps = (uint32_t)number;
	}
	if (o->seed) {
		if (!number_parse(o->seed, UINT64_MAX, &number))
			return ctl_fail(ctl, EXIT_USAGE, "--seed %s: not a number", o->seed);
		learn->has_seed = 1;
		learn->seed = number;
	}
	learn->objective = (char *)(uintptr_t)o->objective;
	learn->has_wait = 1;
	learn->wait = o->wait != NULL;
	return EXIT_DONE;
}

void progress_print(const Kamen__Progress *p)
{
	(void)printf("step %u/%u  loss/lnK %.4f  density %.5f", p->step, p->steps,
		p->has_loss_ratio ? (double)p->loss_ratio : (double)NAN,
		p->has_density ? p->density : (double)NAN);
	if (p->has_seconds_left)
		(void)printf("  %.0f s left", p->seconds_left);
	(void)putchar('\n');
	(void)fflush(stdout);
}

int learn_run(struct ctl *ctl, int argc, char **argv)
{
	struct learn_options o = { 0 };
	const struct option_spec specs[] = {
		{ "steps", "N", "optimiser steps; else the recipe's", &o.steps, NULL },
		{ "seed", "N", "of the round; else the daemon's", &o.seed, NULL },
		{ "objective", "NAME", "else the site's", &o.objective, NULL },
		{ "wait", NULL, "until it is learnt and judged, with progress", &o.wait, NULL },
	};
	_cleanup_(control_freep) struct control *control = NULL;
	Kamen__Request request = KAMEN__REQUEST__INIT;
	Kamen__Learn learn = KAMEN__LEARN__INIT;
	const Kamen__Reply *reply;
	int first, status;

	if (!options_parse(ctl, argc, argv, specs, ARRAY_SIZE(specs), 1, 1, &first, &status))
		return status;
	status = request_fill(ctl, &o, &learn);
	if (status != EXIT_DONE)
		return status;
	learn.site = argv[first];
	request.verb_case = KAMEN__REQUEST__VERB_LEARN;
	request.learn = &learn;
	status = control_open(ctl, &control);
	if (status == EXIT_DONE)
		status = control_send(control, &request, -1);
	while (status == EXIT_DONE) {
		status = control_next(control, o.wait != NULL, &reply);
		if (status != EXIT_DONE || !reply)
			break;
		if (reply->row_case == KAMEN__REPLY__ROW_PROGRESS && !ctl->json)
			progress_print(reply->progress);
		else if (reply->row_case != KAMEN__REPLY__ROW__NOT_SET)
			status = output_reply(ctl, reply, true);
	}
	return status;
}
