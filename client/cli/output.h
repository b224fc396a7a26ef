/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_CLI_OUTPUT_H
#define KAMEN_CLI_OUTPUT_H

#include <jansson.h>
#include <stdint.h>

#include "cli.h"
#include "wire.h"

/** Prints a row and drops the reference: JSON on a line, or for a person: `as_lines` a line a key. */
int output_row(const struct ctl *ctl, json_t *row, bool as_lines);
/** A reply's row as an object whose names are those of contract.md, or NULL. */
json_t *output_object(const Kamen__Reply *reply);
int output_reply(const struct ctl *ctl, const Kamen__Reply *reply, bool as_lines);
/** JSON has no NaN: null. */
json_t *output_number(double number);
/** JSON's integers here have a sign: from 2^63 on the digits as a text. */
json_t *output_integer(uint64_t number);
json_t *output_hex(const void *data, size_t n_bytes);

#endif
