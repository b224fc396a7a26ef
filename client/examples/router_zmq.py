# SPDX-License-Identifier: Apache-2.0
"""What does a site say of an image? Asked over ZeroMQ, from any machine.

    python3 router_zmq.py ENDPOINT SITE FILE [SERVER_KEY KEY_FILE]

Prints verdict, reason, and novelty. KEY_FILE is what kamenctl zmq keygen wrote, SERVER_KEY the
daemon's public key. The few fields of a message are spelled out here (kamen-protocol(7)); protoc
makes a module of kamen.proto for who wants them all.
"""

import struct
import sys

import zmq

INFER, BUDGET_NS = 2, 500_000_000
VERDICTS = ("NO_VERDICT", "OK", "NG", "UNKNOWN")


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out + bytes([value]))


def number(field, value):
    return varint(field << 3) + varint(value)


def text(field, value):
    return varint(field << 3 | 2) + varint(len(value)) + value.encode()


def take_varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            return value, at


def fields(data):
    """Number of a field: its value."""
    found, at = {}, 0
    while at < len(data):
        key, at = take_varint(data, at)
        if key & 7 == 0:
            found[key >> 3], at = take_varint(data, at)
        elif key & 7 == 5:
            found[key >> 3], at = struct.unpack_from("<f", data, at)[0], at + 4
        else:
            n, at = take_varint(data, at)
            found[key >> 3], at = data[at:at + n], at + n
    return found


def main(endpoint, site, path, server_key=None, key_file=None):
    with zmq.Context() as context, context.socket(zmq.REQ) as sock, open(path, "rb") as image:
        sock.linger = 0
        sock.rcvtimeo = 2 * BUDGET_NS // 1_000_000
        if server_key:
            with open(key_file, encoding="ascii") as file:
                secret = file.read().split()[1].encode()
            sock.curve_secretkey, sock.curve_publickey = secret, zmq.curve_public(secret)
            sock.curve_serverkey = server_key.encode()
        sock.connect(endpoint)
        request = (number(1, 1) + number(2, 1) + number(4, INFER) + text(5, site) +
                   number(6, BUDGET_NS))
        sock.send_multipart([request, image.read()])
        reply = fields(sock.recv_multipart()[0])
    print(VERDICTS[reply[5]], reply.get(6, b"").decode(), reply.get(9, ""))


if __name__ == "__main__":
    main(*sys.argv[1:])
