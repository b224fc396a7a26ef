/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_SCHEDULER_H
#define KAMEN_SERVE_SCHEDULER_H

#include "serve/embedding.h"
#include "serve/request.h"
#include "serve/sites.h"

/**
 * What waits for an inference thread, and what they have finished. The only thing that the loop and
 * the inference threads share under a lock; clients never see it.
 *
 * Sites take turns by deficit round robin (Shreedhar and Varghese 1996), counted in input pixels and
 * weighed by their priorities; among sites that still have
 * credit in this round the earliest deadline goes first that is likely to be met (pace.h). A batch
 * is of one site, one snapshot, one size, and no larger than what its first deadline leaves time for;
 * while users share the inference thread none has more of it than the one with less asks for.
 */
struct scheduler;

struct scheduler_options {
	uint32_t max_batch;
	uint64_t delay_ns; /* how long a batch may wait to fill */
	uint32_t px;       /* the model's own, scale of the credit */
};

int scheduler_new(struct scheduler **ret_scheduler, const struct scheduler_options *options);
void scheduler_free(struct scheduler *scheduler);
DEFINE_CLEANUP(struct scheduler *, scheduler_free)

/* ---- loop thread */
/** -EBUSY: the site's queue is full, -ETIMEDOUT: no forward of this size was ever fast enough. */
int scheduler_push(struct scheduler *scheduler, struct request *request);
/** Takes what has been handed back, oldest first; NULL: nothing. */
struct request *scheduler_reap(struct scheduler *scheduler);
/** The same of shadows' samples (shadow.h). */
struct shadow_sample *scheduler_reap_samples(struct scheduler *scheduler);
/** Readable when something was handed back or the inference thread wants to be looked at. */
int scheduler_fd(const struct scheduler *scheduler);
/** Swaps a site's champion; takes the reference. In force before the site's next batch. */
void scheduler_publish(
	struct scheduler *scheduler, struct site_queue *queue, struct serving *serving);
/** How much of the inference thread a site gets while others wait, beside theirs. */
void scheduler_set_priority(
	struct scheduler *scheduler, struct site_queue *queue, uint32_t priority);
/** The present champion, referenced. */
struct serving *scheduler_champion(struct scheduler *scheduler, struct site_queue *queue);
/** Has images looked at (embedding.h) while nothing waits; it is lent until it was handed back. */
void scheduler_embed(struct scheduler *scheduler, struct embedding *embedding);
/** Takes what has been handed back of these. */
struct embedding *scheduler_reap_embeddings(struct scheduler *scheduler);
/** Takes one request out; false: it is with the inference thread, or was handed back. */
bool scheduler_remove(struct scheduler *scheduler, struct request *request);
/** Takes everything out that waits for a site. */
struct request *scheduler_drop(struct scheduler *scheduler, struct site_queue *queue);
uint32_t scheduler_n_waiting(struct scheduler *scheduler);
void scheduler_set_delay(struct scheduler *scheduler, uint64_t delay_ns);
/** scheduler_take() returns 0 from now on. */
void scheduler_stop(struct scheduler *scheduler);

/* ---- inference thread */
/** A batch: a power of two, at most max_batch. waits: until there is one, or images to look at.
 * @return its size, 0: stop, -EAGAIN: nothing waits, and the caller does not want to, either */
int scheduler_take(struct scheduler *scheduler, bool waits, struct request **ret_batch,
	struct serving **ret_serving);
/** Hands a batch back to the loop. */
void scheduler_give(struct scheduler *scheduler, struct request *const *batch, uint32_t n);
/** Whether nothing waits: time for what nobody waits for. */
bool scheduler_is_idle(struct scheduler *scheduler);
/** Hands a shadow's sample back. */
void scheduler_give_sample(struct scheduler *scheduler, struct shadow_sample *sample);
/** The next images to look at, or NULL. */
struct embedding *scheduler_take_embedding(struct scheduler *scheduler);
void scheduler_give_embedding(struct scheduler *scheduler, struct embedding *embedding);
/** How long a batch of n took, of as many forwards as an image takes there. */
void scheduler_learn(struct scheduler *scheduler, const struct serving *serving, uint32_t n,
	uint64_t compute_ns);
/** Wakes the loop. */
void scheduler_wake(struct scheduler *scheduler);

#endif
