/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_CLIENT_CLEANUP_H
#define KAMEN_CLIENT_CLEANUP_H

/* The few of them that a client needs: client may use proto, not the engine's base. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define _cleanup_(f) __attribute__((cleanup(f)))

#define TAKE_PTR(p) \
	({ \
		__typeof__(p) *_pp = &(p); \
		__typeof__(p) _taken = *_pp; \
		*_pp = NULL; \
		_taken; \
	})
#define TAKE_FD(fd) \
	({ \
		int *_pfd = &(fd); \
		int _taken = *_pfd; \
		*_pfd = -1; \
		_taken; \
	})
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

static inline void freep(void *p)
{
	free(*(void **)p);
}

static inline void closep(const int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
}

static inline void fclosep(FILE **f)
{
	if (*f)
		(void)fclose(*f);
}

static inline void closedirp(DIR **d)
{
	if (*d)
		(void)closedir(*d);
}

#endif
