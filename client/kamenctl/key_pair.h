/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMENCTL_KEY_PAIR_H
#define KAMENCTL_KEY_PAIR_H

/**
 * Writes a new pair: the secret line to path, which must not be there yet and is readable by nobody
 * else from its first byte on, the public one to path.pub.
 */
int key_pair_write(const char *path, const char *secret_line, const char *public_line);

#endif
