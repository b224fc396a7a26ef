# SPDX-License-Identifier: Apache-2.0
"""kamen-mask(5), read by somebody who has nothing but that page: bits whose digest is the header's.

Not looked at: XXH3 and ed25519, which the standard library does not have. usage: read_kmask.py FILE...
"""

import hashlib
import struct
import sys

HEADER = struct.Struct("<8sIIQQQQII32s32s32sIIQ")
assert HEADER.size == 168


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def chances(n, k):
    x, zero = (n - k) * 2**32 // n, []
    while x > 2**31:
        zero.append((2**64 - 1) // (2**32 + x))
        x = x * x // 2**32
    return zero, 2**32 - x


class Coder:
    def __init__(self, payload):
        self.payload, self.at, self.padded = payload, 4, max(0, 4 - len(payload))
        self.code, self.range = int.from_bytes(payload[:4].ljust(4, b"\0"), "big"), 2**32 - 1

    def bit(self, chance):
        bound = self.range * chance // 2**32
        bit = self.code >= bound
        if bit:
            self.code -= bound
            self.range -= bound
        else:
            self.range = bound
        while self.range < 2**24:
            self.range *= 256
            byte = self.payload[self.at] if self.at < len(self.payload) else 0
            self.padded += self.at >= len(self.payload)
            self.at += 1
            self.code = self.code * 256 + byte
        return bit


def positions(payload, n, k):
    zero, stop = chances(n, k)
    coder, at = Coder(payload), -1
    for _ in range(k):
        gap = 0
        while coder.bit(stop):
            gap += 2 ** len(zero)
        for j in reversed(range(len(zero))):
            gap += coder.bit(zero[j]) * 2**j
        at += gap + 1
        yield at
    assert coder.padded <= 4 and coder.at >= len(payload), "the payload ends elsewhere"


def words(n, bits):
    for first in range(0, n, 64):
        yield sum(bits[i] << (i - first) for i in range(first, min(n, first + 64)))


def read(data):
    """Kept bits, tensor by tensor, and whether the file is signed."""
    (magic, version, flags, n_bytes, n_weights, n_kept, _, _, n_tensors, _, _, digest, n_rows, zero,
     _) = HEADER.unpack_from(data)
    assert (magic, version, zero) == (b"KAMNMSK1", 1, 0) and flags in (0, 1)
    assert n_bytes == len(data)
    at, payload, tensors = HEADER.size, HEADER.size + n_rows + 8, []
    for _ in range(n_tensors):
        n, at = varint(data, at)
        n_off, at = varint(data, at)
        size, at = varint(data, at)
        at += 4 if size else 0
        k = min(n_off, n - n_off)
        named_is_kept = n_off > n - n_off
        bits = [not named_is_kept] * n
        if k:
            for i in positions(data[payload:payload + size], n, k):
                bits[i] = named_is_kept
        assert bits.count(False) == n_off
        payload += size
        tensors.append(bits)
    assert at == HEADER.size + n_rows, "rows"
    assert payload + 8 + (96 if flags else 0) == len(data), "payloads"
    assert sum(map(len, tensors)) == n_weights
    assert sum(bits.count(True) for bits in tensors) == n_kept
    said = struct.pack(f"<Q{len(tensors)}Q", len(tensors), *map(len, tensors))
    said += b"".join(struct.pack("<Q", word) for bits in tensors for word in words(len(bits), bits))
    assert hashlib.blake2b(said, digest_size=32).digest() == digest, "bits"
    return tensors, flags == 1


if __name__ == "__main__":
    for name in sys.argv[1:]:
        with open(name, "rb") as file:
            found, signed = read(file.read())
        print(f"{name}: {sum(map(len, found))} weights in {len(found)} tensors, "
              f"{sum(bits.count(False) for bits in found)} dropped{', signed' if signed else ''}")
