/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_OPS_HAND_H
#define KAMEN_OPS_HAND_H

#include <stdbool.h>
#include <stddef.h>
#include <systemd/sd-event.h>

/**
 * A thread for what takes the loop long and asks for no decision: a part of a large frame to be
 * copied, memory to be given back, a disk to be waited for. Errands take turns, in the order in which
 * they were given.
 */
struct hand;

struct errand {
	struct errand *next;
	/** In the thread, over and over until false: it may touch only what nobody else does meanwhile. */
	bool (*run)(struct errand *errand);
	/** In the loop, afterwards; it may give the errand again, or free it. */
	void (*done)(struct errand *errand);
};

/** name: of the thread, at most 15 characters. Signals are blocked there. niceness: 0, the process's own. */
int hand_new(struct hand **ret_hand, sd_event *event, const char *name, int niceness);
/** Every errand is run to its end, and done. */
void hand_free(struct hand *hand);
/** Only from the loop. The errand is the hand's until done() is called. */
void hand_give(struct hand *hand, struct errand *errand);
/** Runs to its end what was given before, and calls done(), without the loop. */
void hand_settle(struct hand *hand);
/** Unmaps, later where that may take long; the memory is nobody's from now on. */
void hand_unmap(struct hand *hand, void *at, size_t n_bytes);
/** Closes what may be the last descriptor of many pages. -1: nothing. */
void hand_close(struct hand *hand, int fd);
/** At most about a megabyte of what is left at its end. True: there is more. */
bool hand_unmap_piece(void *at, size_t *n_bytes);

#endif
