/* SPDX-License-Identifier: Apache-2.0 */
#include "ingest/reply.h"

/* What is echoed is there in any case, also where it is 0: who asked need not know of defaults. */
static void fill_echo(Kamen__RouterReply *reply, const struct ask *ask)
{
	kamen__router_reply__init(reply);
	reply->major = WIRE_MAJOR;
	reply->id = ask->id;
	reply->has_trigger_id = reply->has_part_id = true;
	reply->has_capture_us = reply->has_encoder = true;
	reply->trigger_id = ask->trigger_id;
	reply->part_id = ask->part_id;
	reply->capture_us = ask->capture_us;
	reply->encoder = ask->encoder;
	reply->has_budget_ns = ask->budget_ns > 0;
	reply->budget_ns = ask->budget_ns;
}

void reply_fill(Kamen__RouterReply *reply, const struct ask *ask, const struct kamen_result *result)
{
	fill_echo(reply, ask);
	reply->has_code = reply->has_verdict = reply->has_version = reply->has_outcome = true;
	reply->has_queue_ns = reply->has_compute_ns = reply->has_checksum = true;
	reply->has_space = reply->has_n_embedding = true;
	reply->code = result->code;
	reply->verdict = (uint32_t)result->verdict;
	reply->reason = (char *)(uintptr_t)result->reason;
	reply->label = (char *)(uintptr_t)result->label;
	wire_put_float(&reply->has_score, &reply->score, result->score);
	wire_put_float(&reply->has_unknown, &reply->unknown, result->unknown);
	wire_put_float(&reply->has_novelty, &reply->novelty, result->novelty);
	wire_put_float(&reply->has_distance, &reply->distance, result->distance);
	reply->version = result->version;
	reply->outcome = result->outcome;
	reply->queue_ns = result->queue_ns;
	reply->compute_ns = result->compute_ns;
	reply->checksum = result->checksum;
	reply->space = (ProtobufCBinaryData){ 32, (uint8_t *)(uintptr_t)result->space };
	reply->n_embedding = result->n_embedding;
	reply->has_n_hardness = reply->has_hardness_side = result->n_hardness > 0;
	reply->n_hardness = result->n_hardness;
	reply->hardness_side = result->hardness_side;
}

void reply_fill_error(
	Kamen__RouterReply *reply, const struct ask *ask, int code, const char *reason)
{
	fill_echo(reply, ask);
	reply->has_code = reply->has_verdict = true;
	reply->code = code;
	reply->verdict = KAMEN_NO_VERDICT;
	reply->reason = (char *)(uintptr_t)reason;
}

void reply_fill_welcome(Kamen__RouterReply *reply, Kamen__Welcome *welcome, const struct ask *ask,
	uint64_t max_bytes)
{
	fill_echo(reply, ask);
	kamen__welcome__init(welcome);
	welcome->major = WIRE_MAJOR;
	welcome->minor = WIRE_MINOR;
	welcome->has_features = welcome->has_clock_ns = welcome->has_slot_bytes = true;
	welcome->version = (char *)(uintptr_t)kamen_version();
	welcome->clock_ns = clock_now_ns();
	welcome->slot_bytes = max_bytes;
	reply->has_code = true;
	reply->welcome = welcome;
}
