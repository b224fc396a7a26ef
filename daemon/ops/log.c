/* SPDX-License-Identifier: Apache-2.0 */
#define SD_JOURNAL_SUPPRESS_LOCATION
#include <ctype.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <systemd/sd-journal.h>
#include <unistd.h>

#include "engine.h"
#include "ops/log.h"

#define MAX_CALL_SITES 128
#define MAX_FIELDS 16
#define MAX_REPEATS 20
#define WINDOW_NS (30 * NS_PER_S)

struct call_site {
	const char *format; /* a literal's address is the name of a call site */
	uint64_t began_ns;
	uint32_t n, n_dropped;
};

/*
 * The one mutable static of the daemon: a log line is limited over the whole process, and to hand a
 * table to every function that may log one would tell the reader nothing.
 */
static struct {
	pthread_mutex_t mutex;
	struct call_site sites[MAX_CALL_SITES];
} limiter = { .mutex = PTHREAD_MUTEX_INITIALIZER };

/* Call sites past the table's end are not limited. */
static struct call_site *find(const char *format)
{
	size_t at = ((uintptr_t)format >> 3) % MAX_CALL_SITES;

	for (size_t i = 0; i < MAX_CALL_SITES; i++) {
		struct call_site *site = &limiter.sites[(at + i) % MAX_CALL_SITES];

		if (!site->format)
			site->format = format;
		if (site->format == format)
			return site;
	}
	return NULL;
}

/* True: write it. *ret_dropped: so many like it were not written before. */
static bool may_write(const char *format, uint32_t *ret_dropped)
{
	uint64_t now_ns = clock_now_ns();
	struct call_site *site;
	bool may = true;

	*ret_dropped = 0;
	(void)pthread_mutex_lock(&limiter.mutex);
	site = find(format);
	if (site && (site->n == 0 || now_ns - site->began_ns >= WINDOW_NS)) {
		*ret_dropped = site->n_dropped;
		*site = (struct call_site){ .format = format, .began_ns = now_ns };
	}
	if (site && site->n >= MAX_REPEATS) {
		site->n_dropped++;
		may = false;
	} else if (site)
		site->n++;
	(void)pthread_mutex_unlock(&limiter.mutex);
	return may;
}

/* Whether stderr leads straight to the journal; systemd names that stream's device and inode. */
static bool stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long dev, ino;
	struct stat st;

	return stream && sscanf(stream, "%llu:%llu", &dev, &ino) == 2 &&
	       fstat(STDERR_FILENO, &st) == 0 && st.st_dev == dev && st.st_ino == ino;
}

static bool send_to_journal(int priority, const char *fields, const char *message)
{
	char level[16], text[1200], copy[1024];
	struct iovec iov[MAX_FIELDS + 2];
	char *rest, *field;
	int n = 0;

	(void)snprintf(text, sizeof(text), "MESSAGE=%s", message);
	(void)snprintf(level, sizeof(level), "PRIORITY=%d", priority);
	iov[n++] = (struct iovec){ text, strlen(text) };
	iov[n++] = (struct iovec){ level, strlen(level) };
	(void)snprintf(copy, sizeof(copy), "%s", fields ? fields : "");
	for (field = strtok_r(copy, "\n", &rest); field && n < MAX_FIELDS + 2;
		field = strtok_r(NULL, "\n", &rest))
		iov[n++] = (struct iovec){ field, strlen(field) };
	return sd_journal_sendv(iov, n) == 0;
}

static void write_line(int priority, const char *message)
{
	char line[1200];
	int n = snprintf(line, sizeof(line), "<%d>%s\n", priority, message);

	/* One write: lines of several threads and processes do not mix. */
	if (n > 0)
		(void)!write(STDERR_FILENO, line, (size_t)n);
}

void log_write(int priority, const char *fields, const char *format, ...)
{
	uint32_t n_dropped;
	char message[1024];
	va_list ap;
	size_t n;

	if (priority > LOG_INFO && !getenv("KAMEN_DEBUG"))
		return;
	if (!may_write(format, &n_dropped))
		return;
	va_start(ap, format);
	(void)vsnprintf(message, sizeof(message), format, ap);
	va_end(ap);
	n = strlen(message);
	if (n_dropped)
		(void)snprintf(message + n, sizeof(message) - n,
			" (%u more like this were not logged)", n_dropped);
	/* Foreign names end up in messages: none may begin a line of its own. */
	for (char *c = message; *c; c++)
		if (iscntrl((unsigned char)*c))
			*c = ' ';
	if (stderr_is_journal() && send_to_journal(priority, fields, message))
		return;
	write_line(priority, message);
}
