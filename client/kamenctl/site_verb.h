/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMENCTL_SITE_VERB_H
#define KAMENCTL_SITE_VERB_H

#include "control.h"

/** A command of SITE alone, whose request is a SiteName. as_lines: see control_run(). */
int site_verb_run(
	struct ctl *ctl, int argc, char **argv, Kamen__Request__VerbCase verb, bool as_lines);

#endif
