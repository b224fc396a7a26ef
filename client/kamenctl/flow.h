/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMENCTL_FLOW_H
#define KAMENCTL_FLOW_H

#include "cli.h"
#include "images.h"
#include "kamen/kamen.h"

/** Many files through one session, several in flight. */
struct flow {
	struct kamen_request request; /* of every file; n_bytes and part_id are set per file */
	uint64_t patience_ns;         /* deadline of each request from its submission, 0: none */
	/** Called once a file, in the order of the answers; a file that was not sent has a code too. */
	void (*done)(void *data, size_t i, const struct kamen_result *result);
	void *data;
};

/** @return EXIT_DONE: every file was answered for, or a status, said */
int flow_run(const struct ctl *ctl, const struct images *images, const struct flow *flow);

/** Why a file was not accepted or not answered. */
const char *flow_why(const struct kamen_result *result);

/** base, champion or a version number into a request. */
bool flow_mask_parse(const char *text, struct kamen_request *request);

#endif
