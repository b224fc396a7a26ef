/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_BASE_DIAG_H
#define KAMEN_BASE_DIAG_H

/**
 * The text of one error, owned by the caller. The engine never logs: a function that reads foreign
 * data says here what is wrong and where, and returns a negative errno. NULL is accepted.
 */
struct diag {
	char text[512];
};

/** Writes the text and returns -error, so that `return diag_set(d, EBADMSG, ...)` is the way out. */
int diag_set(struct diag *d, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#endif
