/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMENCTL_CSV_LINE_H
#define KAMENCTL_CSV_LINE_H

/**
 * A line PATH,CLASS as RFC 4180 has it, but for line breaks inside of quotes: cut up in place.
 *
 * @param line  without its end; what is found points into it
 * @return NULL, or what is wrong
 */
const char *csv_line_split(char *line, char **ret_path, char **ret_name);

#endif
