/* SPDX-License-Identifier: Apache-2.0 */
#include "mask_file.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "cleanup.h"
#include "ctl.h"
#include "kmask_file.h"
#include "output.h"

/* ---- where from */

int mask_read(const struct ctl *ctl, const char *path, void **ret_data, size_t *ret_n_bytes)
{
	int r = kmask_file_read(path, ret_data, ret_n_bytes);

	return r < 0 ? ctl_fail(ctl, EXIT_FAILED, "%s: %s", path, strerror(-r)) : EXIT_DONE;
}

int mask_version_take(
	const struct ctl *ctl, const char *site, const char *version, Kamen__SiteVersion *message)
{
	unsigned long long number;

	if (!number_parse(version, UINT32_MAX, &number))
		return ctl_fail(ctl, EXIT_USAGE, "%s: not a version", version);
	message->site = (char *)(uintptr_t)site;
	message->has_version = 1;
	message->version = (uint32_t)number;
	return EXIT_DONE;
}

static int read_fd(const struct ctl *ctl, int fd, void **ret_data, size_t *ret_n_bytes)
{
	_cleanup_(freep) void *data = NULL;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0 || st.st_size <= 0 || st.st_size > KMASK_FILE_MAX)
		return ctl_fail(ctl, EXIT_FAILED, "the daemon passed no mask");
	data = malloc((size_t)st.st_size);
	if (!data)
		return ctl_fail(ctl, EXIT_FAILED, "out of memory");
	if (pread(fd, data, (size_t)st.st_size, 0) != (ssize_t)st.st_size)
		return ctl_fail(ctl, EXIT_FAILED, "reading the daemon's mask: %s", strerror(errno));
	*ret_data = TAKE_PTR(data);
	*ret_n_bytes = (size_t)st.st_size;
	return EXIT_DONE;
}

int mask_fetch(const struct ctl *ctl, struct control *control, Kamen__SiteVersion *version,
	void **ret_data, size_t *ret_n_bytes, json_t **ret_row)
{
	_cleanup_(closep) int fd = -1;
	Kamen__Request request = KAMEN__REQUEST__INIT;
	const Kamen__Reply *reply = NULL;
	int status;

	request.verb_case = KAMEN__REQUEST__VERB_MASK_EXPORT;
	request.mask_export = version;
	status = control_send(control, &request, -1);
	if (status == EXIT_DONE)
		status = control_next(control, false, &reply);
	if (status != EXIT_DONE)
		return status;
	fd = control_take_fd(control);
	status = read_fd(ctl, fd, ret_data, ret_n_bytes);
	if (status == EXIT_DONE && ret_row)
		*ret_row = reply && reply->row_case == KAMEN__REPLY__ROW_MASK ? output_object(reply)
									      : json_object();
	return status;
}

/* ---- verify */

static json_t *said_object(const char *path, const struct kmask_said *said)
{
	double n = (double)said->n_elements, bits = n > 0 ? 8.0 * (double)said->n_bytes / n : 0;

	return json_pack("{s:s, s:s, s:n, s:f, s:I, s:f, s:o, s:I, s:o, s:I, s:o, s:o, s:o, s:o, "
			 "s:i, s:i, s:I, s:o, s:i, s:s?}",
		"file", path, "state", "intact", "version", "density", said->density, "bytes",
		(json_int_t)said->n_bytes, "bits_per_weight", bits, "f32_factor",
		output_number(bits > 0 ? 32 / bits : 0), "payload_bytes",
		(json_int_t)said->payload_bytes, "entropy_bytes",
		output_number(said->entropy_bytes), "table_bytes", (json_int_t)said->table_bytes,
		"base_digest", output_hex(said->base, sizeof(said->base)), "prep_digest",
		output_hex(said->prep, sizeof(said->prep)), "mask_digest",
		output_hex(said->mask, sizeof(said->mask)), "seed", output_integer(said->seed),
		"steps", (int)said->steps, "tensors", (int)said->n_tensors, "weights",
		(json_int_t)said->n_elements, "signer",
		said->is_signed ? output_hex(said->signer, sizeof(said->signer)) : json_null(),
		"experts", (int)said->n_experts, "cascade_mode", said->mode);
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

static int verify_khard(const struct ctl *ctl, const char *path, const void *data, size_t n_bytes)
{
	struct khard_said said;
	struct kmask_why why;

	if (kmask_file_verify_khard(data, n_bytes, &said, &why) < 0)
		return ctl_fail(ctl, EXIT_FAILED, "%s: %s", path, why.text);
	return output_row(ctl,
		json_pack("{s:s, s:s, s:s, s:I, s:i, s:i, s:i, s:o, s:o}", "file", path, "state",
			"intact", "kind", "hardness", "bytes", (json_int_t)said.n_bytes, "width",
			(int)said.width, "grid", (int)said.grid, "depth", (int)said.depth,
			"base_digest", output_hex(said.base, sizeof(said.base)), "mask_digest",
			output_hex(said.mask, sizeof(said.mask))),
		true);
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
	status = mask_read(ctl, argv[first], &data, &n_bytes);
	if (status != EXIT_DONE)
		return status;
	if (!keys && kmask_file_is_khard(data, n_bytes))
		return verify_khard(ctl, argv[first], data, n_bytes);
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
	status = mask_read(ctl, argv[first], &data, &n_bytes);
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
