/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preloaded into kamend: counts what its serving role allocates, into the file that KAMEN_ALLOCATIONS
 * names: two numbers of 8 bytes. The first is what is not ours to avoid: oneDNN's table of arguments at
 * every execution of a primitive, and OpenMP's team at the start of a parallel region (not what runs
 * there). The second is everything else.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *old, size_t n);
extern void *__libc_memalign(size_t alignment, size_t n);

enum { IN_LIBRARIES, ELSEWHERE };

static _Atomic uint64_t *counts;
static _Thread_local int depth;
static int (*execute)(const void *, void *, int, const void *);
static void (*parallel)(void (*)(void *), void *, unsigned, unsigned);

struct region {
	void (*body)(void *);
	void *data;
	int depth; /* where it was called */
};

static void count(void)
{
	if (counts)
		atomic_fetch_add(&counts[depth > 0 ? IN_LIBRARIES : ELSEWHERE], 1);
}

static int is_role(void)
{
	char line[4096];
	int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, line, sizeof(line));

	if (fd >= 0)
		(void)close(fd);
	return n > 0 && memmem(line, (size_t)n, "--role=", 7) != NULL;
}

__attribute__((constructor)) static void open_counts(void)
{
	const char *path = getenv("KAMEN_ALLOCATIONS");
	int fd = path && !is_role() ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *map;

	*(void **)&execute = dlsym(RTLD_NEXT, "dnnl_primitive_execute");
	*(void **)&parallel = dlsym(RTLD_NEXT, "GOMP_parallel");
	if (fd < 0)
		return;
	map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	(void)close(fd);
	counts = map == MAP_FAILED ? NULL : map;
}

EXPORT int dnnl_primitive_execute(const void *primitive, void *stream, int n, const void *args)
{
	int status;

	depth++;
	status = execute(primitive, stream, n, args);
	depth--;
	return status;
}

static void run_region(void *data)
{
	const struct region *region = data;
	int around = depth;

	/* On every thread of the team: a primitive's own regions stay its own. */
	depth = region->depth;
	region->body(region->data);
	depth = around;
}

EXPORT void GOMP_parallel(void (*body)(void *), void *data, unsigned n_threads, unsigned flags)
{
	struct region region = { body, data, depth };

	depth++;
	parallel(run_region, &region, n_threads, flags);
	depth--;
}

EXPORT void *malloc(size_t n)
{
	count();
	return __libc_malloc(n);
}

EXPORT void *calloc(size_t n, size_t size)
{
	count();
	return __libc_calloc(n, size);
}

EXPORT void *realloc(void *old, size_t n)
{
	count();
	return __libc_realloc(old, n);
}

EXPORT void *memalign(size_t alignment, size_t n)
{
	count();
	return __libc_memalign(alignment, n);
}

EXPORT void *aligned_alloc(size_t alignment, size_t n)
{
	count();
	return __libc_memalign(alignment, n);
}

EXPORT int posix_memalign(void **ret, size_t alignment, size_t n)
{
	count();
	*ret = __libc_memalign(alignment, n);
	return *ret ? 0 : 12;
}
