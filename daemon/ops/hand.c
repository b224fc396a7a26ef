/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/hand.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

/*
 * Whoever maps or unmaps waits for who does so already, the loop for us: so it is done in pieces. A
 * multiple of every page size.
 */
#define PIECE_BYTES ((size_t)1 << 20)

struct list {
	struct errand *head, **tail;
};

struct hand {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t given, idle;
	struct list waiting, ended;
	bool is_busy, stops;
	int niceness;
	int fd; /* rings for what has ended */
	sd_event_source *io;
};

static void list_init(struct list *list)
{
	list->head = NULL;
	list->tail = &list->head;
}

static void list_add(struct list *list, struct errand *errand)
{
	errand->next = NULL;
	*list->tail = errand;
	list->tail = &errand->next;
}

static struct errand *list_take(struct list *list)
{
	struct errand *errand = list->head;

	list->head = errand->next;
	if (!list->head)
		list->tail = &list->head;
	return errand;
}

/* ---- the thread */

static void *hand_run(void *arg)
{
	const uint64_t one = 1;
	struct hand *hand = arg;

	if (hand->niceness != 0)
		(void)setpriority(PRIO_PROCESS, (id_t)gettid(), hand->niceness);
	(void)pthread_mutex_lock(&hand->lock);
	for (;;) {
		struct errand *errand;
		bool has_more, was_empty;

		while (!hand->waiting.head && !hand->stops)
			(void)pthread_cond_wait(&hand->given, &hand->lock);
		if (!hand->waiting.head)
			break;
		errand = list_take(&hand->waiting);
		hand->is_busy = true;
		(void)pthread_mutex_unlock(&hand->lock);
		has_more = errand->run(errand);
		(void)pthread_mutex_lock(&hand->lock);
		hand->is_busy = false;
		if (has_more) {
			list_add(&hand->waiting, errand);
			continue;
		}
		was_empty = !hand->ended.head;
		list_add(&hand->ended, errand);
		(void)pthread_cond_signal(&hand->idle);
		if (!was_empty)
			continue;
		(void)pthread_mutex_unlock(&hand->lock);
		(void)!write(hand->fd, &one, sizeof(one));
		(void)pthread_mutex_lock(&hand->lock);
	}
	(void)pthread_mutex_unlock(&hand->lock);
	return NULL;
}

/* ---- the loop */

static void finish(struct hand *hand)
{
	struct errand *errand, *next;
	uint64_t n;

	(void)pthread_mutex_lock(&hand->lock);
	(void)!read(hand->fd, &n, sizeof(n));
	errand = hand->ended.head;
	list_init(&hand->ended);
	(void)pthread_mutex_unlock(&hand->lock);
	for (; errand; errand = next) {
		next = errand->next;
		errand->done(errand);
	}
}

static int on_ended(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	(void)source;
	(void)fd;
	(void)revents;
	finish(userdata);
	return 0;
}

void hand_give(struct hand *hand, struct errand *errand)
{
	(void)pthread_mutex_lock(&hand->lock);
	list_add(&hand->waiting, errand);
	(void)pthread_mutex_unlock(&hand->lock);
	/* Who wakes finds the lock free. */
	(void)pthread_cond_signal(&hand->given);
}

static bool wait_until_idle(struct hand *hand)
{
	bool has_ended;

	(void)pthread_mutex_lock(&hand->lock);
	while (hand->waiting.head || hand->is_busy)
		(void)pthread_cond_wait(&hand->idle, &hand->lock);
	has_ended = hand->ended.head;
	(void)pthread_mutex_unlock(&hand->lock);
	return has_ended;
}

/* What is done may give another. */
void hand_settle(struct hand *hand)
{
	while (hand && wait_until_idle(hand))
		finish(hand);
}

static int start(struct hand *hand, const char *name)
{
	sigset_t all, before;
	int r;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	r = -pthread_create(&hand->thread, NULL, hand_run, hand);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r == 0)
		(void)pthread_setname_np(hand->thread, name);
	return r;
}

static void dispose(struct hand *hand)
{
	hand->io = sd_event_source_disable_unref(hand->io);
	if (hand->fd >= 0)
		(void)close(hand->fd);
	(void)pthread_mutex_destroy(&hand->lock);
	(void)pthread_cond_destroy(&hand->given);
	(void)pthread_cond_destroy(&hand->idle);
	free(hand);
}

int hand_new(struct hand **ret_hand, sd_event *event, const char *name, int niceness)
{
	struct hand *hand = calloc(1, sizeof(*hand));
	int r;

	if (!hand)
		return -ENOMEM;
	(void)pthread_mutex_init(&hand->lock, NULL);
	(void)pthread_cond_init(&hand->given, NULL);
	(void)pthread_cond_init(&hand->idle, NULL);
	list_init(&hand->waiting);
	list_init(&hand->ended);
	hand->niceness = niceness;
	hand->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = hand->fd < 0 ? -errno
			 : sd_event_add_io(event, &hand->io, hand->fd, EPOLLIN, on_ended, hand);
	if (r >= 0)
		r = start(hand, name);
	if (r < 0) {
		dispose(hand);
		return r;
	}
	*ret_hand = hand;
	return 0;
}

void hand_free(struct hand *hand)
{
	if (!hand)
		return;
	hand_settle(hand);
	(void)pthread_mutex_lock(&hand->lock);
	hand->stops = true;
	(void)pthread_cond_signal(&hand->given);
	(void)pthread_mutex_unlock(&hand->lock);
	(void)pthread_join(hand->thread, NULL);
	dispose(hand);
}

/* ---- memory */

struct leftover {
	struct errand errand;
	void *at; /* NULL: a descriptor is left */
	size_t n_bytes;
	int fd;
};

bool hand_unmap_piece(void *at, size_t *n_bytes)
{
	size_t n = *n_bytes % PIECE_BYTES;

	if (n == 0)
		n = *n_bytes < PIECE_BYTES ? *n_bytes : PIECE_BYTES;
	*n_bytes -= n;
	if (n > 0)
		(void)munmap((char *)at + *n_bytes, n);
	return *n_bytes > 0;
}

static bool give_back(struct errand *errand)
{
	struct leftover *leftover = (struct leftover *)errand;

	if (leftover->at)
		return hand_unmap_piece(leftover->at, &leftover->n_bytes);
	(void)close(leftover->fd);
	return false;
}

static void forget(struct errand *errand)
{
	free(errand);
}

void hand_unmap(struct hand *hand, void *at, size_t n_bytes)
{
	struct leftover *leftover = NULL;

	if (hand && n_bytes > PIECE_BYTES / 4)
		leftover = malloc(sizeof(*leftover));
	if (!leftover) {
		(void)munmap(at, n_bytes);
		return;
	}
	*leftover = (struct leftover){ { NULL, give_back, forget }, at, n_bytes, -1 };
	hand_give(hand, &leftover->errand);
}

void hand_close(struct hand *hand, int fd)
{
	struct leftover *leftover = hand && fd >= 0 ? malloc(sizeof(*leftover)) : NULL;

	if (leftover) {
		*leftover = (struct leftover){ { NULL, give_back, forget }, NULL, 0, fd };
		hand_give(hand, &leftover->errand);
	} else if (fd >= 0) {
		(void)close(fd);
	}
}
