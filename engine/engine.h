/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_ENGINE_H
#define KAMEN_ENGINE_H

/*
 * All that the daemon may call: it includes this header and nothing else from below engine/.
 * Rooms, bottom up. No function here logs, exits or starts a thread of its own (oneDNN's OpenMP
 * team apart); every one returns 0 or a negative errno.
 */
#include "base/arena.h"
#include "base/blob.h"
#include "base/chain.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/diag.h"
#include "base/digest.h"
#include "base/rng.h"
#include "image/augment.h"
#include "image/image.h"
#include "image/prep.h"
#include "image/resize.h"
#include "mask/bits.h"
#include "mask/kmask.h"
#include "mask/kmask_sign.h"
#include "mask/slot.h"
#include "model/base.h"
#include "model/random.h"
#include "model/vit.h"
#include "classify/cosine.h"
#include "classify/figures.h"
#include "classify/opta.h"
#include "classify/prototype.h"
#include "classify/reference.h"
#include "classify/unknown.h"
#include "cascade/mask_set.h"
#include "learn/cascade.h"
#include "learn/early_stop.h"
#include "learn/hardness.h"
#include "learn/head.h"
#include "learn/judge.h"
#include "learn/recipe.h"
#include "learn/round.h"

#endif
