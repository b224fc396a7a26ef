/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "ctl.h"
#include "kmask_file.h"
#include "output.h"

static int file_read(const struct ctl *ctl, const char *path, void **ret_data, size_t *ret_n_bytes)
{
	int r = kmask_file_read(path, ret_data, ret_n_bytes);

	return r < 0 ? ctl_fail(ctl, EXIT_FAILED, "%s: %s", path, strerror(-r)) : EXIT_DONE;
}

/* ---- verify */

static json_t *said_object(const char *path, const struct kmask_said *said)
{
	double n = (double)said->n_elements, bits = n > 0 ? 8.0 * (double)said->n_bytes / n : 0;

	return json_pack("{s:s, s:s, s:n, s:f, s:I, s:f, s:o, s:I, s:o, s:I, s:o, s:o, s:o, s:I, "
			 "s:i, s:i, s:I, s:o}",
		"file", path, "state", "intact", "version", "density",
		n > 0 ? (double)said->n_kept / n : 1., "bytes", (json_int_t)said->n_bytes,
		"bits_per_weight", bits, "f32_factor", output_number(bits > 0 ? 32 / bits : 0),
		"payload_bytes", (json_int_t)said->payload_bytes, "entropy_bytes",
		output_number(said->entropy_bytes), "table_bytes", (json_int_t)said->table_bytes,
		"base_digest", output_hex(said->base, sizeof(said->base)), "prep_digest",
		output_hex(said->prep, sizeof(said->prep)), "mask_digest",
		output_hex(said->mask, sizeof(said->mask)), "seed", (json_int_t)said->seed, "steps",
		(int)said->steps, "tensors", (int)said->n_tensors, "weights",
		(json_int_t)said->n_elements, "signer",
		said->is_signed ? output_hex(said->signer, sizeof(said->signer)) : json_null());
}

/* What --keys asks for. */
static int trust(
	const struct ctl *ctl, const char *path, const char *keys, const struct kmask_said *said)
{
	struct kmask_why why = { "" };
	int r;

	if (!said->is_signed)
		return ctl_fail(ctl, EXIT_FAILED, "%s: is not signed", path);
	r = kmask_file_trusts(keys, said->signer, &why);
	if (r < 0)
		return ctl_fail(ctl, EXIT_FAILED, "%s: %s", keys, why.text);
	return r > 0 ? EXIT_DONE
		     : ctl_fail(ctl, EXIT_FAILED, "%s: is signed by a key that %s does not list",
			       path, keys);
}

int mask_verify_run(struct ctl *ctl, int argc, char **argv)
{
	_cleanup_(freep) void *data = NULL;
	const char *keys = NULL;
	const struct option_spec specs[] = {
		{ "keys", "LIST", "it must be signed by a key of this list", &keys, NULL },
	};
	struct kmask_said said;
	struct kmask_why why;
	size_t n_bytes;
	int first, status;

	if (!options_parse(ctl, argc, argv, specs, 1, 1, 1, &first, &status))
		return status;
	status = file_read(ctl, argv[first], &data, &n_bytes);
	if (status != EXIT_DONE)
		return status;
	if (kmask_file_verify(data, n_bytes, &said, &why) < 0)
		return ctl_fail(ctl, EXIT_FAILED, "%s: %s", argv[first], why.text);
	status = keys ? trust(ctl, argv[first], keys, &said) : EXIT_DONE;
	if (status != EXIT_DONE)
		return status;
	return output_row(ctl, said_object(argv[first], &said), true);
}

/* ---- keygen, sign */

int mask_keygen_run(struct ctl *ctl, int argc, char **argv)
{
	const char *name = "";
	const struct option_spec specs[] = {
		{ "name", "NAME", "of the key, for who reads a list of them", &name, NULL },
	};
	char key[KMASK_HEX_CHARS + 1];
	struct kmask_why why;
	int first, status;

	if (!options_parse(ctl, argc, argv, specs, 1, 1, 1, &first, &status))
		return status;
	if (strpbrk(name, "\r\n"))
		return ctl_fail(ctl, EXIT_USAGE, "--name: one line");
	if (kmask_file_keygen(argv[first], name, key, &why) < 0)
		return ctl_fail(ctl, EXIT_FAILED, "%s: %s", argv[first], why.text);
	return output_row(ctl, json_pack("{s:s, s:s}", "file", argv[first], "key", key), true);
}

int mask_sign_run(struct ctl *ctl, int argc, char **argv)
{
	_cleanup_(freep) void *data = NULL, *with = NULL;
	const char *key = NULL, *out = NULL;
	const struct option_spec specs[] = {
		{ "key", "FILE", "the secret key, as keygen wrote it", &key, NULL },
		{ "output", "FILE", "written instead of the mask's own file", &out, NULL },
	};
	struct kmask_said said;
	struct kmask_why why;
	size_t n_bytes, n_with;
	int first, status, r;

	if (!options_parse(ctl, argc, argv, specs, 2, 1, 1, &first, &status))
		return status;
	if (!key)
		return ctl_fail(ctl, EXIT_USAGE, "sign with which key? --key FILE");
	status = file_read(ctl, argv[first], &data, &n_bytes);
	if (status != EXIT_DONE)
		return status;
	if (kmask_file_verify(data, n_bytes, &said, &why) < 0)
		return ctl_fail(ctl, EXIT_FAILED, "%s: %s", argv[first], why.text);
	if (kmask_file_sign(data, n_bytes, key, &with, &n_with, &why) < 0)
		return ctl_fail(ctl, EXIT_FAILED, "%s: %s", key, why.text);
	if (kmask_file_verify(with, n_with, &said, &why) < 0)
		return ctl_fail(ctl, EXIT_FAILED, "%s: %s", argv[first], why.text);
	if (!out)
		out = argv[first];
	r = kmask_file_write(out, with, n_with);
	if (r < 0)
		return ctl_fail(ctl, EXIT_FAILED, "%s: %s", out, strerror(-r));
	return output_row(ctl, said_object(out, &said), true);
}
