/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/scheduler.h"

#include <errno.h>
#include <pthread.h>
#include <sys/eventfd.h>

#include "serve/limits.h"
#include "serve/pace.h"
#include "serve/session.h"
#include "serve/shadow.h"

/* A user that had a place in a batch. */
struct asker {
	const uint64_t *turn; /* whose, never looked into; NULL: nobody's */
	uint64_t at_ns;
	uint32_t n; /* of its images that waited at that site then, max_batch at most */
};

struct scheduler {
	pthread_mutex_t lock;
	pthread_cond_t filled;
	struct site_queue *active, **active_tail; /* in order of their turn */
	struct request *done, **done_tail;
	struct shadow_sample *samples; /* handed back */
	struct embedding *embeddings,
		*embedded; /* to be looked at, first come first; handed back */
	uint32_t n_waiting, max_batch;
	uint64_t turn, turn_of_nobody; /* of who led the last batch; ingest's (later.h) */
	struct asker last, other;      /* the last user in a batch, and the last that was not it */
	uint64_t delay_ns, quantum;
	struct pace pace;
	bool stopping;
	int wake_fd;
};

int scheduler_new(struct scheduler **ret_scheduler, const struct scheduler_options *options)
{
	struct scheduler *s;
	pthread_condattr_t attr;

	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->wake_fd < 0) {
		free(s);
		return -errno;
	}
	(void)pthread_mutex_init(&s->lock, NULL);
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&s->filled, &attr);
	(void)pthread_condattr_destroy(&attr);
	s->active_tail = &s->active;
	s->done_tail = &s->done;
	s->max_batch = options->max_batch > 0 ? options->max_batch : 1;
	if (s->max_batch > SERVE_MAX_BATCH)
		s->max_batch = SERVE_MAX_BATCH;
	s->delay_ns = options->delay_ns;
	s->quantum = (uint64_t)s->max_batch * options->px * options->px;
	*ret_scheduler = s;
	return 0;
}

void scheduler_free(struct scheduler *scheduler)
{
	if (!scheduler)
		return;
	(void)pthread_cond_destroy(&scheduler->filled);
	(void)pthread_mutex_destroy(&scheduler->lock);
	(void)close(scheduler->wake_fd);
	free(scheduler);
}

static void lock(struct scheduler *s)
{
	(void)pthread_mutex_lock(&s->lock);
}

static void unlock(struct scheduler *s)
{
	(void)pthread_mutex_unlock(&s->lock);
}

int scheduler_fd(const struct scheduler *scheduler)
{
	return scheduler->wake_fd;
}

void scheduler_wake(struct scheduler *scheduler)
{
	uint64_t one = 1;

	/* Can only fail when the counter is full, and then the loop is awake anyhow. */
	if (write(scheduler->wake_fd, &one, sizeof(one)) < 0)
		return;
}

static void activate(struct scheduler *s, struct site_queue *queue)
{
	if (queue->active)
		return;
	queue->active = true;
	queue->deficit = 0;
	queue->next = NULL;
	*s->active_tail = queue;
	s->active_tail = &queue->next;
}

static void deactivate(struct scheduler *s, struct site_queue *queue)
{
	struct site_queue **at = &s->active;

	if (!queue->active)
		return;
	while (*at != queue)
		at = &(*at)->next;
	*at = queue->next;
	if (s->active_tail == &queue->next)
		s->active_tail = at;
	queue->active = false;
	queue->next = NULL;
}

static void unlink_request(struct site_queue *queue, struct request *request)
{
	struct request **at = &queue->head;

	while (*at != request)
		at = &(*at)->next;
	*at = request->next;
	if (queue->tail == &request->next)
		queue->tail = at;
	queue->n--;
}

static const struct serving *serving_of(
	const struct site_queue *queue, const struct request *request)
{
	return request->serving ? request->serving : queue->champion;
}

static uint64_t deadline_of(const struct request *request)
{
	return request->wire.deadline_ns > 0 ? request->wire.deadline_ns : UINT64_MAX;
}

/* Images of a user, as turns at inference. */
static uint64_t *turn_of(struct scheduler *s, const struct request *request)
{
	struct quota_user *user = request->session ? request->session->user : NULL;

	return user ? &user->turns[LATER_FORWARD] : &s->turn_of_nobody;
}

void scheduler_learn(
	struct scheduler *scheduler, const struct serving *serving, uint32_t n, uint64_t compute_ns)
{
	lock(scheduler);
	pace_learn(&scheduler->pace, serving, n, compute_ns);
	unlock(scheduler);
}

static bool comes_too_late(
	struct scheduler *s, const struct site_queue *queue, const struct request *request)
{
	const struct serving *serving = serving_of(queue, request);
	uint64_t least = pace_least(&s->pace, serving);

	if (least == 0 || request->wire.deadline_ns == 0 ||
		clock_now_ns() + least <= request->wire.deadline_ns)
		return false;
	pace_doubt_least(&s->pace, serving);
	return true;
}

int scheduler_push(struct scheduler *scheduler, struct request *request)
{
	struct site_queue *queue = &request->site->queue;
	int r = 0;

	lock(scheduler);
	if (queue->n >= SERVE_MAX_SITE_QUEUE) {
		r = -EBUSY;
	} else if (comes_too_late(scheduler, queue, request)) {
		r = -ETIMEDOUT;
	} else {
		request->turn = turn_of(scheduler, request);
		if (*request->turn < scheduler->turn)
			*request->turn = scheduler->turn;
		request->next = NULL;
		if (!queue->head)
			queue->tail = &queue->head;
		*queue->tail = request;
		queue->tail = &request->next;
		queue->n++;
		scheduler->n_waiting++;
		activate(scheduler, queue);
	}
	unlock(scheduler);
	/* Who wakes finds the lock free. */
	if (r == 0)
		(void)pthread_cond_signal(&scheduler->filled);
	return r;
}

struct request *scheduler_reap(struct scheduler *scheduler)
{
	struct request *done;
	uint64_t count;

	if (read(scheduler->wake_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		return NULL;
	lock(scheduler);
	done = TAKE_PTR(scheduler->done);
	scheduler->done_tail = &scheduler->done;
	unlock(scheduler);
	return done;
}

void scheduler_give(struct scheduler *scheduler, struct request *const *batch, uint32_t n)
{
	lock(scheduler);
	for (uint32_t i = 0; i < n; i++) {
		batch[i]->next = NULL;
		*scheduler->done_tail = batch[i];
		scheduler->done_tail = &batch[i]->next;
	}
	unlock(scheduler);
	scheduler_wake(scheduler);
}

struct shadow_sample *scheduler_reap_samples(struct scheduler *scheduler)
{
	struct shadow_sample *samples;

	lock(scheduler);
	samples = TAKE_PTR(scheduler->samples);
	unlock(scheduler);
	return samples;
}

void scheduler_give_sample(struct scheduler *scheduler, struct shadow_sample *sample)
{
	lock(scheduler);
	sample->next = scheduler->samples;
	scheduler->samples = sample;
	unlock(scheduler);
	scheduler_wake(scheduler);
}

static void append(struct embedding **list, struct embedding *embedding)
{
	embedding->next = NULL;
	while (*list)
		list = &(*list)->next;
	*list = embedding;
}

void scheduler_embed(struct scheduler *scheduler, struct embedding *embedding)
{
	lock(scheduler);
	append(&scheduler->embeddings, embedding);
	(void)pthread_cond_signal(&scheduler->filled);
	unlock(scheduler);
}

struct embedding *scheduler_take_embedding(struct scheduler *scheduler)
{
	struct embedding *embedding;

	lock(scheduler);
	embedding = scheduler->embeddings;
	if (embedding)
		scheduler->embeddings = embedding->next;
	unlock(scheduler);
	return embedding;
}

void scheduler_give_embedding(struct scheduler *scheduler, struct embedding *embedding)
{
	lock(scheduler);
	append(&scheduler->embedded, embedding);
	unlock(scheduler);
	scheduler_wake(scheduler);
}

struct embedding *scheduler_reap_embeddings(struct scheduler *scheduler)
{
	struct embedding *embedded;

	lock(scheduler);
	embedded = TAKE_PTR(scheduler->embedded);
	unlock(scheduler);
	return embedded;
}

bool scheduler_is_idle(struct scheduler *scheduler)
{
	bool is_idle;

	lock(scheduler);
	is_idle = !scheduler->active && !scheduler->stopping;
	unlock(scheduler);
	return is_idle;
}

void scheduler_publish(
	struct scheduler *scheduler, struct site_queue *queue, struct serving *serving)
{
	struct serving *old;

	lock(scheduler);
	old = queue->champion;
	queue->champion = serving;
	unlock(scheduler);
	serving_unref(old);
}

void scheduler_set_priority(
	struct scheduler *scheduler, struct site_queue *queue, uint32_t priority)
{
	lock(scheduler);
	queue->priority = priority;
	unlock(scheduler);
}

struct serving *scheduler_champion(struct scheduler *scheduler, struct site_queue *queue)
{
	struct serving *serving;

	lock(scheduler);
	serving = queue->champion ? serving_ref(queue->champion) : NULL;
	unlock(scheduler);
	return serving;
}

static bool is_queued(const struct site_queue *queue, const struct request *request)
{
	for (const struct request *q = queue->head; q; q = q->next)
		if (q == request)
			return true;
	return false;
}

bool scheduler_remove(struct scheduler *scheduler, struct request *request)
{
	struct site_queue *queue = &request->site->queue;
	bool found;

	lock(scheduler);
	found = is_queued(queue, request);
	if (found) {
		unlink_request(queue, request);
		scheduler->n_waiting--;
		if (!queue->head)
			deactivate(scheduler, queue);
	}
	unlock(scheduler);
	return found;
}

struct request *scheduler_drop(struct scheduler *scheduler, struct site_queue *queue)
{
	struct request *dropped;

	lock(scheduler);
	deactivate(scheduler, queue);
	dropped = TAKE_PTR(queue->head);
	scheduler->n_waiting -= queue->n;
	queue->n = 0;
	unlock(scheduler);
	return dropped;
}

uint32_t scheduler_n_waiting(struct scheduler *scheduler)
{
	uint32_t n;

	lock(scheduler);
	n = scheduler->n_waiting;
	unlock(scheduler);
	return n;
}

void scheduler_set_delay(struct scheduler *scheduler, uint64_t delay_ns)
{
	lock(scheduler);
	scheduler->delay_ns = delay_ns;
	unlock(scheduler);
}

void scheduler_stop(struct scheduler *scheduler)
{
	lock(scheduler);
	scheduler->stopping = true;
	(void)pthread_cond_broadcast(&scheduler->filled);
	unlock(scheduler);
}

/* ---- the choice of a batch, all under the lock */

static uint64_t cost_of(const struct site_queue *queue, const struct request *request)
{
	const struct serving *serving = serving_of(queue, request);
	uint64_t px = serving->prep.input_px;

	return px * px * serving->n_forwards;
}

/* Whether a forward that begins now and takes so long is likely to end before its deadline. */
static bool can_finish(const struct request *request, uint64_t takes_ns, uint64_t now)
{
	uint64_t deadline = deadline_of(request);

	return deadline == UINT64_MAX || now + takes_ns <= deadline;
}

/*
 * What comes first: users in turn; of one, earliest deadlines; those that cannot be met last, the latest
 * of them first.
 */
static bool is_before(const struct request *a, bool a_can, const struct request *b, bool b_can)
{
	if (a_can != b_can)
		return a_can;
	if (*a->turn != *b->turn)
		return *a->turn < *b->turn;
	return a_can ? deadline_of(a) < deadline_of(b) : deadline_of(a) > deadline_of(b);
}

/*
 * The most urgent request of a queue that is not in vain; first come where nothing is urgent; of the
 * user whose turn it is, so that nobody's flood, whatever its deadlines, stands before others. Where
 * all are in vain the one that misses by the least: else a bad moment would never be unlearnt.
 */
static struct request *leader_of(
	const struct scheduler *s, const struct site_queue *queue, uint64_t now, bool *ret_can)
{
	const struct serving *serving = NULL;
	struct request *leader = NULL;
	bool leader_can = false;
	uint64_t takes_ns = 0;

	for (struct request *q = queue->head; q; q = q->next) {
		bool can;

		/* Nearly all of a site ask for the same one. */
		if (serving_of(queue, q) != serving) {
			serving = serving_of(queue, q);
			takes_ns = pace_expect(&s->pace, serving, 1);
		}
		can = can_finish(q, takes_ns, now);
		if (!leader || is_before(q, can, leader, leader_can)) {
			leader = q;
			leader_can = can;
		}
	}
	*ret_can = leader_can;
	return leader;
}

static uint32_t power_of_two_below(uint32_t n)
{
	uint32_t power = 1;

	while (power * 2 <= n)
		power *= 2;
	return power;
}

/*
 * Until when the leader's batch may still wait for more to share its forward; 0: it need not. What
 * counts is who waits, not the credit: that only splits a batch, it does not make it grow.
 */
static uint64_t fill_until(const struct scheduler *s, const struct site_queue *queue, uint64_t now)
{
	const struct serving *serving;
	uint64_t until = UINT64_MAX;
	uint32_t n = 0;
	bool can;

	if (s->delay_ns == 0 || s->stopping)
		return 0;
	serving = serving_of(queue, leader_of(s, queue, now, &can));
	for (const struct request *q = queue->head; q; q = q->next) {
		if (serving_of(queue, q) != serving)
			continue;
		if (++n >= power_of_two_below(s->max_batch))
			return 0;
		if (q->received_ns + s->delay_ns < until)
			until = q->received_ns + s->delay_ns;
		/* A batch must never wait past what one of its own can still meet. */
		if (deadline_of(q) <= until + s->delay_ns)
			return 0;
	}
	return until;
}

/*
 * Images of a user in a batch. While two users are about, no more than the one with less has to ask
 * for: of two that flood both have all, and who asks for one image at a time waits for one of a
 * flood, not for a whole batch of it.
 */
static uint32_t share_of(const struct scheduler *s, uint64_t now)
{
	uint32_t n = s->last.n < s->other.n ? s->last.n : s->other.n;

	return n == 0 || now > s->other.at_ns + SERVE_ABOUT_NS ? s->max_batch : n;
}

/* A whole batch at the lowest priority: who waits alone is not to be cut into smaller ones. That a site
 * may have several in a round does no harm: after each the queue goes to the end of the ring. */
static uint64_t credit_of(const struct scheduler *s, const struct site_queue *queue, uint64_t now)
{
	uint64_t quantum = s->quantum / s->max_batch * share_of(s, now);

	return quantum * (queue->priority > 0 ? queue->priority : SITE_PRIORITY);
}

/* NULL: every queue may still fill, the first of them until *ret_until. */
static struct site_queue *next_queue(struct scheduler *s, uint64_t now, uint64_t *ret_until)
{
	bool any;

	do {
		struct site_queue *best = NULL;
		const struct request *best_leader = NULL;
		bool best_can = false;

		any = false;
		*ret_until = UINT64_MAX;
		for (struct site_queue *q = s->active; q; q = q->next) {
			bool can;
			struct request *leader = leader_of(s, q, now, &can);
			uint64_t until = fill_until(s, q, now);

			if (until > now) {
				*ret_until = until < *ret_until ? until : *ret_until;
				continue;
			}
			any = true;
			if (q->deficit < cost_of(q, leader))
				continue;
			if (!best || is_before(leader, can, best_leader, best_can)) {
				best = q;
				best_leader = leader;
				best_can = can;
			}
		}
		if (best)
			return best;
		/* Credit for those that wait for it, not for those that wait to fill. */
		for (struct site_queue *q = s->active; q && any; q = q->next)
			if (fill_until(s, q, now) <= now)
				q->deficit += credit_of(s, q, now);
	} while (any);
	return NULL;
}

/* No larger than what ends before the leader's deadline, the earliest of those that can be met. */
static uint32_t in_time(
	struct scheduler *s, const struct site_queue *queue, struct request *leader, uint32_t n)
{
	const struct serving *serving = serving_of(queue, leader);
	uint64_t now = clock_now_ns();

	while (n > 1 && !can_finish(leader, pace_expect(&s->pace, serving, n), now)) {
		pace_doubt(&s->pace, serving, n);
		n /= 2;
	}
	return n;
}

static uint32_t count_of(struct request *const *batch, uint32_t n, const uint64_t *turn)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < n; i++)
		count += batch[i]->turn == turn;
	return count;
}

static bool is_in(struct request *const *batch, uint32_t n, const struct request *request)
{
	for (uint32_t i = 0; i < n; i++)
		if (batch[i] == request)
			return true;
	return false;
}

/*
 * The leader and who may share its forward, in order of arrival; where users have shares, one of each
 * after the other.
 */
static uint32_t gather(struct scheduler *s, const struct site_queue *queue, struct request *leader,
	uint64_t now, struct request **ret_batch)
{
	const struct serving *serving = serving_of(queue, leader);
	uint64_t credit = queue->deficit / cost_of(queue, leader);
	uint64_t takes_ns = pace_expect(&s->pace, serving, 1);
	uint32_t limit = credit < s->max_batch ? (uint32_t)credit : s->max_batch;
	uint32_t share = share_of(s, now), n = 0, least = share < limit ? 1 : share;

	ret_batch[n++] = leader;
	for (uint32_t most = least; most <= share && n < limit; most++)
		for (struct request *q = queue->head; q && n < limit; q = q->next)
			if (serving_of(queue, q) == serving && can_finish(q, takes_ns, now) &&
				count_of(ret_batch, n, q->turn) < most && !is_in(ret_batch, n, q))
				ret_batch[n++] = q;
	return in_time(s, queue, leader, power_of_two_below(n));
}

static uint32_t n_waiting_of(
	const struct scheduler *s, const struct site_queue *queue, const uint64_t *turn)
{
	uint32_t n = 0;

	for (const struct request *q = queue->head; q && n < s->max_batch; q = q->next)
		n += q->turn == turn;
	return n;
}

/* Before the batch is taken out. */
static void remember(struct scheduler *s, const struct site_queue *queue,
	struct request *const *batch, uint32_t n, uint64_t now)
{
	for (uint32_t i = 0; i < n; i++) {
		const uint64_t *turn = batch[i]->turn;

		if (s->last.at_ns == now &&
			(s->last.turn == turn || (s->other.at_ns == now && s->other.turn == turn)))
			continue;
		if (s->last.turn != turn)
			s->other = s->last;
		s->last = (struct asker){ turn, now, n_waiting_of(s, queue, turn) };
	}
}

static void take_out(struct scheduler *s, struct site_queue *queue, struct request **batch,
	uint32_t n, uint64_t now, struct serving **ret_serving)
{
	*ret_serving = serving_ref((struct serving *)serving_of(queue, batch[0]));
	queue->deficit -= n * cost_of(queue, batch[0]);
	s->turn = *batch[0]->turn;
	remember(s, queue, batch, n, now);
	for (uint32_t i = 0; i < n; i++) {
		unlink_request(queue, batch[i]);
		(*batch[i]->turn)++;
	}
	s->n_waiting -= n;
	deactivate(s, queue);
	if (queue->head) {
		/* To the end of the ring, with what credit it has left. */
		uint64_t deficit = queue->deficit;

		activate(s, queue);
		queue->deficit = deficit;
	}
}

int scheduler_take(struct scheduler *scheduler, bool waits, struct request **ret_batch,
	struct serving **ret_serving)
{
	struct scheduler *s = scheduler;
	uint32_t n = 0;
	bool ends;

	lock(s);
	while (n == 0) {
		uint64_t now = clock_now_ns(), until;
		struct site_queue *queue;
		bool can;

		if (!s->active) {
			if (s->stopping || !waits || s->embeddings)
				break;
			(void)pthread_cond_wait(&s->filled, &s->lock);
			continue;
		}
		queue = next_queue(s, now, &until);
		if (!queue) {
			struct timespec ts = { (time_t)(until / NS_PER_S),
				(long)(until % NS_PER_S) };

			(void)pthread_cond_timedwait(&s->filled, &s->lock, &ts);
			continue;
		}
		n = gather(s, queue, leader_of(s, queue, now, &can), now, ret_batch);
		take_out(s, queue, ret_batch, n, now, ret_serving);
	}
	/* Who leaves with a batch no longer watches what is left: another one has to. */
	if (s->active)
		(void)pthread_cond_signal(&s->filled);
	ends = s->stopping;
	unlock(s);
	return n > 0 ? (int)n : ends ? 0 : -EAGAIN;
}
