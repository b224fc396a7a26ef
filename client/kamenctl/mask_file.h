/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMENCTL_MASK_FILE_H
#define KAMENCTL_MASK_FILE_H

#include <jansson.h>

#include "cli.h"
#include "control.h"

/* Where the mask commands get a mask from; each says why not and returns what the shell sees. */

/** SITE and VERSION as a message; borrows the site. */
int mask_version_take(
	const struct ctl *ctl, const char *site, const char *version, Kamen__SiteVersion *message);
/** A file's bytes, malloc'ed. */
int mask_read(const struct ctl *ctl, const char *path, void **ret_data, size_t *ret_n_bytes);
/** The same of a version that the daemon has. *ret_row, where asked for: what it says of it. */
int mask_fetch(const struct ctl *ctl, struct control *control, Kamen__SiteVersion *version,
	void **ret_data, size_t *ret_n_bytes, json_t **ret_row);

#endif
