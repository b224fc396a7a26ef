/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/slice.h"

#include <errno.h>
#include <linux/sched.h>
#include <linux/sched/types.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SLICE_NS 100000u /* the shortest that the kernel takes */

/* Enough to be in time beside several that never sleep, whatever it has had before. */
enum { FIRST_NICENESS = -5 };

/* Debian 12's libc has neither of the two calls. */
static int get(struct sched_attr *attr)
{
	*attr = (struct sched_attr){ .size = sizeof(*attr) };
	return syscall(SYS_sched_getattr, 0, attr, sizeof(*attr), 0) < 0 ? -errno : 0;
}

static int set(struct sched_attr *attr, uint64_t flags)
{
	attr->sched_runtime = SLICE_NS;
	attr->sched_flags = flags;
	return syscall(SYS_sched_setattr, 0, attr, 0) < 0 ? -errno : 0;
}

int slice_shorten(void)
{
	struct sched_attr attr;
	int r = get(&attr);

	/* Whoever was given another class has what he wants. */
	if (r < 0 || attr.sched_policy != SCHED_NORMAL)
		return r;
	return set(&attr, 0);
}

int slice_first(void)
{
	struct sched_attr attr;
	int r = get(&attr), niceness = attr.sched_nice;

	if (r < 0 || attr.sched_policy != SCHED_NORMAL)
		return r;
	if (niceness > FIRST_NICENESS)
		attr.sched_nice = FIRST_NICENESS;
	r = set(&attr, SCHED_FLAG_RESET_ON_FORK);
	if (r != -EPERM && r != -EACCES)
		return r;
	attr.sched_nice = niceness;
	return set(&attr, SCHED_FLAG_RESET_ON_FORK);
}
