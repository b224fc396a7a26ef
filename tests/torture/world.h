/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_TORTURE_WORLD_H
#define KAMEN_TORTURE_WORLD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/clock.h"

/*
 * What the parent, its honest clients and its liars share: one anonymous mapping, made before they
 * fork. The parent moves the phase; liars draw the numbers of their faults from it; whoever finds
 * something writes a note.
 */
enum phase { PHASE_WARM, PHASE_QUIET, PHASE_BARE, PHASE_STORM, PHASE_END, N_PHASES = PHASE_END };

enum violation { VIOLATION_WRONG, VIOLATION_LOST, VIOLATION_HANG, VIOLATION_BREACH, N_VIOLATIONS };

enum honest_kind { HONEST_ECHO, HONEST_INFER, HONEST_ENCODED, N_HONEST_KINDS };

#define WORLD_MAX_FAULTS 64 /* kinds */
#define WORLD_MAX_SAMPLES 400000u
#define WORLD_N_NOTES 32u
#define WORLD_MAX_LIARS 16u

/** Latencies of one kind of honest request in one phase. */
struct samples {
	_Atomic uint32_t n;
	uint32_t ns[WORLD_MAX_SAMPLES];
};

/** What a liar has taken of the CPUs, with its children, and in how many pieces. */
struct load {
	uint64_t user_ns, system_ns, wall_ns, n_pieces;
};

struct world {
	uint64_t seed, n_faults;
	bool is_other;    /* liars are another user than the honest */
	bool is_ordinary; /* one who may use data.sock and nothing else; else they are root */
	unsigned patience_ms;
	unsigned pause_ms; /* of a liar between two faults */
	int only;          /* the one kind of fault, -1: any */
	char data_path[100], control_path[100];
	_Atomic int phase;
	_Atomic bool is_measured; /* not before a first storm has made the daemon's plans */
	_Atomic uint64_t next_fault, n_done;
	_Atomic uint64_t n_of_fault[WORLD_MAX_FAULTS];
	_Atomic uint64_t n_of_violation[N_VIOLATIONS];
	_Atomic uint64_t n_answers;           /* to honest requests */
	_Atomic uint32_t n_parked;            /* liars that hold nothing */
	_Atomic uint64_t at[WORLD_MAX_LIARS]; /* what each liar does: fault number, kind << 56 */
	/* Of each liar, written by it alone: in storms, and where it burns as much for itself. */
	struct load storm_load[WORLD_MAX_LIARS], bare_load[WORLD_MAX_LIARS];
	_Atomic uint32_t n_notes;
	char notes[WORLD_N_NOTES][256];
	struct samples samples[N_HONEST_KINDS][N_PHASES];
};

/** Counts, and keeps the text of the first ones. */
void world_note(struct world *world, enum violation violation, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/** Never returns: the processes that are forked. */
_Noreturn void honest_main(struct world *world, enum honest_kind kind, unsigned number);
_Noreturn void liar_main(struct world *world, unsigned number);

#endif
