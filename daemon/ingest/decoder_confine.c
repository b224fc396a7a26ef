/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "ingest/decoder_child.h"

/* A sanitizer maps terabytes and makes calls of its own: its builds check memory instead. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define IS_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define IS_SANITIZED 1
#endif
#endif
#ifndef IS_SANITIZED
#define IS_SANITIZED 0
#endif

/* The largest image as pixels, twice (decoded, shrunk), its file, and what the libraries need. */
#define MAX_ADDRESS_SPACE (UINT64_C(1) << 30)

static int allow_calls(scmp_filter_ctx filter)
{
	static const int calls[] = { SCMP_SYS(read), SCMP_SYS(pread64), SCMP_SYS(write),
		SCMP_SYS(recvmsg), SCMP_SYS(sendmsg), SCMP_SYS(close), SCMP_SYS(munmap),
		SCMP_SYS(brk), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(futex),
		SCMP_SYS(memfd_create), SCMP_SYS(ftruncate), SCMP_SYS(setitimer),
		SCMP_SYS(getrandom), SCMP_SYS(clock_gettime), SCMP_SYS(rt_sigreturn),
		SCMP_SYS(restart_syscall), SCMP_SYS(exit), SCMP_SYS(exit_group) };
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(calls); i++)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, calls[i], 0);
	return r;
}

/* Memory never becomes code, and fcntl only seals. */
static int allow_calls_by_argument(scmp_filter_ctx filter)
{
	int r;

	r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
		SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	if (r == 0)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
			SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	if (r == 0)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(fcntl), 1,
			SCMP_A1(SCMP_CMP_EQ, F_ADD_SEALS));
	return r;
}

static int load_filter(void)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int r;

	if (!filter)
		return -ENOMEM;
	r = allow_calls(filter);
	if (r == 0)
		r = allow_calls_by_argument(filter);
	if (r == 0)
		r = seccomp_load(filter); /* with no_new_privs */
	seccomp_release(filter);
	return r;
}

int decoder_confine(void)
{
	static const struct rlimit none = { 0, 0 };
	static const struct rlimit memory = { MAX_ADDRESS_SPACE, MAX_ADDRESS_SPACE };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || setrlimit(RLIMIT_CORE, &none) < 0)
		return -errno;
	if (IS_SANITIZED)
		return 0;
	if (setrlimit(RLIMIT_AS, &memory) < 0)
		return -errno;
	return load_filter();
}
