/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_OPS_LOG_H
#define KAMEN_OPS_LOG_H

#include <syslog.h>

/*
 * One line where a decision is made, never on the way up. To the journal as MESSAGE= with the
 * fields given when stderr is the journal (JOURNAL_STREAM), else to stderr with a <n> prefix.
 * Thread-safe. Repeats of one call site are limited to 20 in 30 s; what was dropped is counted.
 */

/** log_write(LOG_INFO, "KAMEN_SITE=a\nKAMEN_VERSION=3", "site %s: ...", ...); fields may be NULL. */
void log_write(int priority, const char *fields, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#define log_error(...) log_write(LOG_ERR, NULL, __VA_ARGS__)
#define log_warning(...) log_write(LOG_WARNING, NULL, __VA_ARGS__)
#define log_notice(...) log_write(LOG_NOTICE, NULL, __VA_ARGS__)
#define log_info(...) log_write(LOG_INFO, NULL, __VA_ARGS__)
#define log_debug(...) log_write(LOG_DEBUG, NULL, __VA_ARGS__)

#endif
