/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMENCTL_INFER_OPTA_H
#define KAMENCTL_INFER_OPTA_H

#include "cli.h"
#include "images.h"

/** infer --opta: all files are told apart at once by the champion's classes. Of what is none of them
 * nothing is asked. @return a status, the error said */
int infer_opta_run(
	struct ctl *ctl, const char *site, const struct images *images, uint64_t patience_ns);

#endif
