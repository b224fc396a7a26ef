# SPDX-License-Identifier: Apache-2.0
"""libzmq by ctypes, and the messages of kamen-protocol(7) on it. Standard library only."""

import ctypes
import ctypes.util
import errno
import socket
import struct
import sys

from harness import ENCODED, INFER, PATIENCE, field, fields, varint

NAME = ctypes.util.find_library("zmq") or "libzmq.so.5"
try:
    LIB = ctypes.CDLL(NAME, use_errno=True)
except OSError:
    print("skipped: no libzmq")
    sys.exit(77)
LIB.zmq_ctx_new.restype = ctypes.c_void_p
LIB.zmq_socket.restype = ctypes.c_void_p
LIB.zmq_socket.argtypes = [ctypes.c_void_p, ctypes.c_int]
LIB.zmq_setsockopt.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
LIB.zmq_getsockopt.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
LIB.zmq_connect.argtypes = LIB.zmq_bind.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
LIB.zmq_send.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int]
LIB.zmq_recv.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
LIB.zmq_close.argtypes = LIB.zmq_ctx_term.argtypes = [ctypes.c_void_p]
LIB.zmq_curve_keypair.argtypes = [ctypes.c_char_p, ctypes.c_char_p]

SUB, REQ, DEALER, PUSH_SOCKET, XSUB = 2, 3, 5, 8, 10
ROUTING_ID, SUBSCRIBE, RCVMORE, LINGER, SNDHWM, RCVHWM = 5, 6, 13, 17, 23, 24
RCVTIMEO, SNDTIMEO, CURVE_PUBLIC, CURVE_SECRET, CURVE_SERVER = 27, 28, 48, 49, 50
DONTWAIT, SNDMORE = 1, 2
CONTEXT = LIB.zmq_ctx_new()
ROOM = ctypes.create_string_buffer(1 << 20)


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def keypair():
    """Public and secret half, as text."""
    public, secret = ctypes.create_string_buffer(41), ctypes.create_string_buffer(41)
    assert LIB.zmq_curve_keypair(public, secret) == 0
    return public.value, secret.value


class Socket:
    """One connection; what does not come in time is None."""

    def __init__(self, kind, endpoint, server=None, keys=None, **options):
        self.socket = LIB.zmq_socket(CONTEXT, kind)
        self.option(LINGER, 0)
        self.option(RCVTIMEO, int(PATIENCE * 1000))
        self.option(SNDTIMEO, int(PATIENCE * 1000))
        if server:
            self.option(CURVE_SERVER, server)
            self.option(CURVE_PUBLIC, keys[0])
            self.option(CURVE_SECRET, keys[1])
        for name, value in options.items():
            self.option(globals()[name.upper()], value)
        assert LIB.zmq_connect(self.socket, endpoint.encode()) == 0, endpoint

    def option(self, option, value):
        data = struct.pack("=i", value) if isinstance(value, int) else value
        assert LIB.zmq_setsockopt(self.socket, option, data, len(data)) == 0, option

    def send(self, *parts, flags=0):
        for i, part in enumerate(parts):
            more = SNDMORE if i + 1 < len(parts) else 0
            if LIB.zmq_send(self.socket, part, len(part), more | flags) < 0:
                return False
        return True

    def receive(self, patience=PATIENCE):
        """All parts of a message."""
        self.option(RCVTIMEO, int(patience * 1000))
        parts, more, size = [], ctypes.c_int(1), ctypes.c_size_t(4)
        while more.value:
            n = LIB.zmq_recv(self.socket, ROOM, len(ROOM), 0)
            if n < 0:
                assert ctypes.get_errno() == errno.EAGAIN, ctypes.get_errno()
                return None
            parts.append(ROOM.raw[:min(n, len(ROOM))])
            assert LIB.zmq_getsockopt(self.socket, RCVMORE, ctypes.byref(more),
                                      ctypes.byref(size)) == 0
        return parts

    def close(self):
        if self.socket:
            LIB.zmq_close(self.socket)
        self.socket = None


def text(number, value):
    data = value if isinstance(value, bytes) else value.encode()
    return varint(number << 3 | 2) + varint(len(data)) + data


FIELDS = {"budget_ns": 6, "fmt": 7, "width": 8, "height": 9, "stride": 10, "trigger_id": 11,
          "part_id": 12, "capture_us": 13, "encoder": 14, "mask": 15, "version": 16, "px": 17,
          "flags": 18}


def request(ident, verb=INFER, site="a", fmt=ENCODED, major=1, space=None, **numbers):
    """A RouterRequest."""
    out = field(1, major) + field(2, ident) + field(4, verb)
    if site is not None:
        out += text(5, site)
    for name, value in dict(numbers, fmt=fmt).items():
        out += field(FIELDS[name], value)
    return out + (text(19, space) if space else b"")


def reply(parts):
    """A RouterReply as a dictionary."""
    assert parts is not None, "no answer"
    if parts[0] == b"":
        parts = parts[1:]
    row = fields(parts[0])
    code = row.get(4, 0)
    n, n_hardness = row.get(21, 0), row.get(110, 0)
    assert len(parts) == (2 if n + n_hardness else 1), parts
    values = struct.unpack(f"<{n + n_hardness}f", parts[1]) if n + n_hardness else ()
    assert row[1] == 1
    return {"id": row[2], "welcome": row.get(3),
            "code": code - (1 << 64) if code >> 63 else code, "verdict": row.get(5),
            "reason": row.get(6, b"").decode(), "novelty": row.get(9), "version": row.get(11),
            "outcome": row.get(12), "checksum": row.get(19),
            "budget_ns": row.get(22, 0), "echo": tuple(row.get(k) for k in (15, 16, 17, 18)),
            "space": row.get(20, b"").hex(),
            "label": row.get(7, b"").decode(), "score": row.get(8), "unknown": row.get(100),
            "hardness_side": row.get(111, 0), "embedding": values[:n], "hardness": values[n:]}
