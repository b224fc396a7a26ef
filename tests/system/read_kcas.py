# SPDX-License-Identifier: Apache-2.0
"""kamen-cascade(5), read by somebody who has nothing but that page: a content whose digest is the
header's. Not looked at: XXH3, which the standard library does not have. usage: read_kcas.py FILE...
"""

import hashlib
import math
import struct
import sys

import read_kmask

HEADER = struct.Struct("<8sIIQQIIIIII32s32s32sQ")
assert HEADER.size == 160


def shapes(e, w, r, d):
    """Numbers of each array, in the file's order."""
    return [w, r * w, e, e * r, e * r * (r + 1) // 2, (e + 1) * w, d * (e + 1) * w]


def read(data):
    (magic, version, mode, n_bytes, _, _, e, w, r, d, zero, base, prep, digest,
     _) = HEADER.unpack_from(data)
    assert (magic, version, zero) == (b"KAMNCAS1", 1, 0) and mode in (0, 1)
    assert n_bytes == len(data)
    assert 1 <= e <= 8 and 1 <= w <= 65536 and 1 <= r <= w and 1 <= d <= w
    sizes = struct.unpack_from(f"<{e + 1}Q", data, HEADER.size)
    begin = HEADER.size + 8 * (e + 1)
    end = begin + 4 * sum(shapes(e, w, r, d))
    assert all(math.isfinite(x) for x in struct.unpack(f"<{(end - begin) // 4}f", data[begin:end]))
    at, masks, n_dropped = end + 8, [], 0
    for size in sizes:
        part = data[at:at + size]
        tensors, signed = read_kmask.read(part)
        fields = read_kmask.HEADER.unpack_from(part)
        assert not signed and (fields[9], fields[10]) == (base, prep)
        masks.append(fields[11])
        n_dropped += sum(bits.count(False) for bits in tensors)
        at += size
    assert at + 8 == len(data), "masks"
    said = b"kamen cascade 1\0" + struct.pack("<5I", e, mode, w, d, r)
    said += b"".join(masks) + data[begin:end]
    assert hashlib.blake2b(said, digest_size=32).digest() == digest, "content"
    return e, w, d, n_dropped


for name in sys.argv[1:]:
    with open(name, "rb") as file:
        found = read(file.read())
    print("{}: {} experts, {} numbers become {}, {} weights dropped".format(name, *found))
