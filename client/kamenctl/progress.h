/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMENCTL_PROGRESS_H
#define KAMENCTL_PROGRESS_H

#include "wire.h"

/** A line for a person who waits for a round. */
void progress_print(const Kamen__Progress *p);

#endif
