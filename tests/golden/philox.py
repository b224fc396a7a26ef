# SPDX-License-Identifier: Apache-2.0
"""The project's random streams (engine/base/rng.h) a second time, for scripts that write goldens."""
M32 = 0xFFFFFFFF


def block(counter, key):
    c, k = list(counter), list(key)
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & M32, (p0 >> 32) ^ c[3] ^ k[1], p0 & M32]
        k = [(k[0] + 0x9E3779B9) & M32, (k[1] + 0xBB67AE85) & M32]
    return c


class Stream:
    def __init__(self, seed, a, b, c):
        self.key, self.counter, self.left = [seed & M32, seed >> 32], [0, a, b, c], []

    def u32(self):
        if not self.left:
            self.left = block(self.counter, self.key)
            self.counter[0] = (self.counter[0] + 1) & M32
        return self.left.pop(0)

    def below(self, n):
        while True:
            product = self.u32() * n
            if product & M32 >= (2**32 - n) % n:
                return product >> 32

    def permutation(self, n):
        order = []
        for i in range(n):
            j = self.below(i + 1)
            order.append(i)
            order[i], order[j] = order[j], i
        return order
