/* SPDX-License-Identifier: Apache-2.0 */
#include <stdint.h>
#include <string.h>

#include "ops/config_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

/* The first byte says whether it is a site's file; what was accepted must print and read back. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
	struct site_file site = { 0 };
	struct site_settings again;
	struct config config;
	char value[512];
	struct diag diag;

	if (n_bytes == 0)
		return 0;
	config_default(&config);
	site.settings = config.site_defaults;
	again = config.site_defaults;
	if (config_parse(&config, data[0] == 's' ? &site : NULL, "fuzz", (const char *)data + 1,
		    n_bytes - 1, &diag) < 0)
		return 0;
	if (data[0] != 's')
		site.settings = config.site_defaults;
	for (unsigned i = 0; config_site_keys[i]; i++) {
		const char *key = config_site_keys[i];

		if (site_settings_get(&site.settings, key, value, sizeof(value)) < 0 ||
			site_settings_set(&again, key, value, &diag) < 0)
			__builtin_trap();
	}
	return 0;
}
