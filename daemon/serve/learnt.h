/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_LEARNT_H
#define KAMEN_SERVE_LEARNT_H

#include "kamen.pb-c.h"
#include "serve/sites.h"

struct round_job;

/**
 * The row of a version as the learner says that it is done. What can be known from the files in the
 * round's folder is read from them, and they are checked: the learner is not believed.
 *
 * @return 0, -EBADMSG: what it says and what it wrote do not fit each other (diag), or another errno
 */
int learnt_read(struct version_row *ret_row, struct serve *serve, const struct round_job *job,
	const Kamen__LearnDone *done, struct diag *diag);

#endif
