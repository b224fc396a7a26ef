/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_OPS_SLICE_H
#define KAMEN_OPS_SLICE_H

/**
 * Asks for a short time slice for the calling thread, which then preempts others of its priority
 * when it wakes (EEVDF, Linux 6.12; older kernels take no notice). It takes no more CPU than before,
 * only sooner, and no privilege. What it starts has the usual slice.
 *
 * @return 0 or a negative errno: things are as they were
 */
int slice_shorten(void);

#endif
