/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_OPS_SLICE_H
#define KAMEN_OPS_SLICE_H

/**
 * Asks for a short time slice for the calling thread, which then preempts others of its priority
 * when it wakes (EEVDF, Linux 6.12; older kernels take no notice). It takes no more CPU than before,
 * only sooner, and no privilege. What it starts has it, too.
 *
 * @return 0 or a negative errno: things are as they were
 */
int slice_shorten(void);
/**
 * The same for a thread that says what others wait for and computes nothing itself; and where the
 * limit of niceness lets it (LimitNICE= of the unit) it goes before those of the usual one. What it
 * starts has neither.
 */
int slice_first(void);

#endif
