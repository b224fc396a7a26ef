/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_HANDOVER_H
#define KAMEN_SERVE_HANDOVER_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Descriptors that outlive this process, by name. Two ways lead to the next one, which takes them
 * alike: systemd's store, which also has them after a kill; and execve() of the daemon by itself,
 * with a list of them in a memfd that $KAMEN_HANDOVER names.
 */
#define HANDOVER_NAME_BYTES 48u

struct handed {
	char name[HANDOVER_NAME_BYTES];
	int fd; /* -1: taken */
};

struct handover {
	struct handed *items; /* (n), from the process before */
	uint32_t n, n_room;
	/* What systemd stores for this service ($FDSTORE), 0: nothing; and holds by now. */
	uint32_t max_stored, n_stored;
	bool was_executed; /* by the serve before, in the same process */
	uint64_t since_ns; /* when that stopped to take requests */
	bool is_leaving;   /* what is stored stays so */
	/* (n_unsaid) what systemd is to store, or (fd: -1) to forget: its queue was full. */
	struct handed *unsaid;
	uint32_t n_unsaid, unsaid_room;
};

/** Looks what there is, once, before anything else is started. */
int handover_read(struct handover *handover);
/** Closes what nobody took, and has it forgotten. */
void handover_done(struct handover *handover);
/** -1: there is none of that name. */
int handover_take(struct handover *handover, const char *name);

/** Room for so many more descriptors. */
bool handover_has_room(const struct handover *handover, uint32_t n);
/**
 * Gives the manager a copy; no more than a wish. Names are of one descriptor each. Nothing waits for
 * it: what cannot be said now is said by handover_say(), in its order.
 */
void handover_store(struct handover *handover, const char *name, int fd);
/** The same now or not at all. 0, or -EAGAIN: its queue is full. */
int handover_try_store(struct handover *handover, const char *name, int fd);
void handover_forget(struct handover *handover, const char *name);
/** False: something is still unsaid. */
bool handover_say(struct handover *handover);
/** n of those that came from the process before were not in the store: it did not have the time. */
void handover_uncount(struct handover *handover, uint32_t n);
/** Says what can be said, and forgets the rest. */
void handover_unsaid_done(struct handover *handover);

/**
 * Executes path in place of this program, with these descriptors. What OpenMP was told by us is
 * taken out of the environment: the next one reads a configuration of its own.
 *
 * @return a negative errno, everything is as it was; else it does not
 */
int handover_execute(const struct handed *items, uint32_t n, uint64_t since_ns, const char *path,
	char *const *argv);

#endif
