/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_TESTS_CSV_H
#define KAMEN_TESTS_CSV_H

/*
 * A CSV file that grows by whole lines: what was killed while it wrote leaves a line without an end,
 * which no reader takes and the next writer removes.
 */

/** The folders above a path, as far as they are missing. */
int csv_make_parents(const char *path);

/** @return 0, also where there is no file yet, or -EBADMSG: the file begins with other columns */
int csv_check(const char *path, const char *head);

/** Writes the head first where there is no file. head, line: with their '\n'. */
int csv_append(const char *path, const char *head, const char *line);

#endif
