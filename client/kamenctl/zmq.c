/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <zmq.h>

#include "ctl.h"
#include "key_pair.h"
#include "output.h"

enum { KEY_BYTES = 41 }; /* with the NUL, as libzmq writes it */

int zmq_keygen_run(struct ctl *ctl, int argc, char **argv)
{
	const char *name = "";
	const struct option_spec specs[] = {
		{ "name", "NAME", "of the key, for who reads the public half", &name, NULL },
	};
	char secret[KEY_BYTES], key[KEY_BYTES], secret_line[128], public_line[512];
	int first, status, r;

	if (!options_parse(ctl, argc, argv, specs, 1, 1, 1, &first, &status))
		return status;
	if (strpbrk(name, "\r\n"))
		return ctl_fail(ctl, EXIT_USAGE, "--name: one line");
	if (zmq_curve_keypair(key, secret) < 0)
		return ctl_fail(ctl, EXIT_FAILED, "this libzmq has no CURVE");
	(void)snprintf(secret_line, sizeof(secret_line), "kamen-curve-secret %s\n", secret);
	(void)snprintf(public_line, sizeof(public_line), "kamen-curve-key %s %.300s\n", key, name);
	r = key_pair_write(argv[first], secret_line, public_line);
	explicit_bzero(secret, sizeof(secret));
	explicit_bzero(secret_line, sizeof(secret_line));
	if (r < 0)
		return ctl_fail(ctl, EXIT_FAILED, "%s: %s", argv[first], strerror(-r));
	return output_row(ctl, json_pack("{s:s, s:s}", "file", argv[first], "key", key), true);
}
