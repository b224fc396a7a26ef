/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "learner/khard.h"

#define NAME "candidate.khard"

int khard_keep(const struct round *round, const struct digest *mask, int round_fd)
{
	_cleanup_(freep) void *data = NULL;
	size_t n_bytes;
	int r = round_hardness(round, mask, &data, &n_bytes);

	if (r == -ENODATA)
		return 0;
	return r < 0 ? r : blob_write(round_fd, NAME, data, n_bytes);
}

int khard_settle(int round_fd, const struct digest *mask)
{
	_cleanup_(freep) void *data = NULL;
	struct hardness_info info;
	size_t n_bytes;
	int r = blob_read(round_fd, NAME, HARDNESS_MAX_BYTES, &data, &n_bytes);

	if (r == -ENOENT)
		return 0;
	if (r == 0)
		r = hardness_check(&info, data, n_bytes, NULL);
	if (r == 0 && digest_equal(&info.mask, mask))
		return 0;
	return unlinkat(round_fd, NAME, 0) < 0 ? -errno : 0;
}
