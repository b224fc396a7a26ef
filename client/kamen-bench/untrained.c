/* SPDX-License-Identifier: Apache-2.0 */
#include "untrained.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "model/random.h"

int untrained_write(const char *name, const char *path, struct diag *diag)
{
	_cleanup_(freep) void *data = NULL;
	_cleanup_(fclosep) FILE *f = NULL;
	struct vit_shape shape;
	size_t n_bytes;
	int r = random_vit_shape(&shape, name);

	if (r < 0)
		return diag_set(diag, EINVAL, "%s: vit_t, vit_s, vit_b or vit_demo", name);
	r = random_vit_encode(&shape, 1, &data, &n_bytes);
	if (r < 0)
		return r;
	f = fopen(path, "we");
	if (!f || fwrite(data, 1, n_bytes, f) != n_bytes || fflush(f) != 0)
		return diag_set(diag, errno, "%s: %s", path, strerror(errno));
	return 0;
}

int untrained_load(struct base **ret_base, const char *name, struct diag *diag)
{
	_cleanup_(closep) int fd = memfd_create(name, MFD_CLOEXEC);
	char path[32];
	int r;

	if (fd < 0)
		return -errno;
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	r = untrained_write(name, path, diag);
	return r < 0 ? r : base_load(ret_base, path, diag);
}
