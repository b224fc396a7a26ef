/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_OPS_CONFIG_FILE_H
#define KAMEN_OPS_CONFIG_FILE_H

#include "ops/config.h"

/* Between config.c (what may be set) and config_file.c (files, lines); the fuzzer enters here. */

bool config_has_section(const char *section, bool of_site);
int config_set(struct config *config, const char *section, const char *key, const char *value,
	struct diag *diag);

/**
 * Parses one file's text into config, or, when site is not NULL, into that site.
 *
 * @param path  for messages only
 * @return 0, or -EINVAL with PATH:LINE in diag
 */
int config_parse(struct config *config, struct site_file *site, const char *path, const char *text,
	size_t n_bytes, struct diag *diag);

#endif
