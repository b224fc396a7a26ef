/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_INGEST_REPLY_H
#define KAMEN_INGEST_REPLY_H

#include <kamen/kamen.h>

#include "ingest/ask.h"

/* Answers as messages. They borrow what they are filled from; the result's strings too. */

void reply_fill(
	Kamen__RouterReply *reply, const struct ask *ask, const struct kamen_result *result);
/** NO_VERDICT, with a negative errno and its reason. */
void reply_fill_error(
	Kamen__RouterReply *reply, const struct ask *ask, int code, const char *reason);
void reply_fill_welcome(Kamen__RouterReply *reply, Kamen__Welcome *welcome, const struct ask *ask,
	uint64_t max_bytes);

#endif
