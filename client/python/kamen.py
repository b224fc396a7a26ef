# SPDX-License-Identifier: Apache-2.0
"""kamend's verdicts in Python, through libkamen (libkamen(3)) and the standard library alone.

    import kamen

    with kamen.Client() as client:
        result = client.infer("line-3", open("part.png", "rb").read(), embedding=True)
        print(result.verdict, result.novelty, result.embedding[:4])

An image is the bytes of a JPEG, PNG, PGM or PPM file, or whatever has the buffer protocol and the
shape (height, width, 3) or (height, width) of uint8: a numpy array, for one. It is copied once, into
memory that is shared with the daemon. A client is for one thread. Whatever libkamen refuses is an
OSError with its errno; a request that the daemon refuses is a result with a code. A daemon that is
restarted is found again, and what was in flight is sent to it: kamen_client_connect(3).
"""

import ctypes
import errno
import os
import time
from array import array
from typing import NamedTuple

__all__ = ["Client", "Result", "BGR8", "ENCODED", "MONO8", "RGB8", "ECHO", "INFER", "PUSH"]

ECHO, INFER, PUSH = 1, 2, 3
ENCODED, RGB8, MONO8, BGR8 = 0, 1, 2, 3
WANT_EMBEDDING, WANT_HARDNESS = 1, 4
_NO_RECONNECT = 1
FOREVER = 2**64 - 1

_u32, _u64 = ctypes.c_uint32, ctypes.c_uint64


class _Options(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("n_slots", _u32), ("slot_bytes", _u64),
                ("reconnect_ns", _u64), ("flags", _u32), ("spin_us", _u32)]


class _Frame(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("capacity", ctypes.c_size_t), ("slot", _u32)]


class _Request(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("verb", ctypes.c_int), ("format", ctypes.c_int),
                ("site", ctypes.c_char_p), ("n_bytes", ctypes.c_size_t),
                ("width", _u32), ("height", _u32), ("stride", _u32), ("deadline_ns", _u64),
                ("trigger_id", _u64), ("part_id", _u64), ("capture_us", _u64), ("encoder", _u64),
                ("mask", ctypes.c_int), ("version", _u32), ("px", _u32), ("flags", _u32),
                ("space", ctypes.c_uint8 * 32)]


class _Result(ctypes.Structure):
    _fields_ = [("id", _u64), ("code", ctypes.c_int), ("verdict", ctypes.c_int),
                ("reason", ctypes.c_char_p), ("label", ctypes.c_char_p),
                ("score", ctypes.c_float), ("novelty", ctypes.c_float),
                ("distance", ctypes.c_float), ("version", _u32), ("outcome", _u32),
                ("queue_ns", _u64), ("compute_ns", _u64),
                ("trigger_id", _u64), ("part_id", _u64), ("capture_us", _u64), ("encoder", _u64),
                ("checksum", _u64), ("space", ctypes.POINTER(ctypes.c_uint8)),
                ("embedding", ctypes.POINTER(ctypes.c_float)), ("n_embedding", _u32),
                ("slot", _u32), ("deadline_ns", _u64), ("hardness", ctypes.POINTER(ctypes.c_float)),
                ("n_hardness", _u32), ("hardness_side", _u32), ("unknown", ctypes.c_float),
                ("unused", _u32), ("reserved", _u64 * 4)]


class Result(NamedTuple):
    """One answer, a copy: struct kamen_result of libkamen(3)."""

    id: int
    code: int       # 0, or a negative errno: then the reason says more
    verdict: str    # OK, NG, UNKNOWN or NO_VERDICT
    reason: str
    label: str      # its class, where the site tells classes apart; "": of none
    score: float    # confidence in it; NaN: not known, as are novelty, distance and unknown
    novelty: float
    distance: float
    version: int    # of the mask that answered; 0: the frozen base
    outcome: int    # of a push: 0 accepted, 1 duplicate, 2 rejected
    queue_ns: int
    compute_ns: int
    trigger_id: int
    part_id: int
    capture_us: int
    encoder: int
    deadline_ns: int
    space: bytes    # embeddings of equal spaces may be compared
    embedding: array  # of floats, empty where it was not asked for; numpy.frombuffer() takes it
    checksum: int = 0  # of an ECHO: XXH3 of the bytes that the daemon read
    hardness: array = array("f")  # a map of hardness_side rows and columns, empty: not asked for
    hardness_side: int = 0
    unknown: float = float("nan")  # 0 to 1, beyond .5 of none of the classes


def _library():
    """$KAMEN_LIBRARY, or what the system's linker finds."""
    lib = ctypes.CDLL(os.environ.get("KAMEN_LIBRARY", "libkamen.so.0"))
    pointer, client = ctypes.POINTER, ctypes.c_void_p
    for name, restype, *argtypes in (
            ("kamen_client_connect", ctypes.c_int, pointer(client), ctypes.c_char_p,
             pointer(_Options)),
            ("kamen_client_free", client, client),
            ("kamen_client_get_fd", ctypes.c_int, client),
            ("kamen_client_get_events", ctypes.c_int, client),
            ("kamen_client_get_timeout", ctypes.c_int, client, pointer(_u64)),
            ("kamen_frame_acquire", ctypes.c_int, client, ctypes.c_size_t, pointer(_Frame)),
            ("kamen_frame_discard", None, client, pointer(_Frame)),
            ("kamen_submit", ctypes.c_int, client, pointer(_Frame), pointer(_Request),
             pointer(_u64)),
            ("kamen_process", ctypes.c_int, client),
            ("kamen_next", ctypes.c_int, client, pointer(_Result)),
            ("kamen_wait", ctypes.c_int, client, _u64, pointer(_Result)),
            ("kamen_release", None, client, pointer(_Result)),
            ("kamen_verdict_name", ctypes.c_char_p, ctypes.c_int)):
        function = getattr(lib, name)
        function.restype, function.argtypes = restype, argtypes
    return lib


def _check(r, what):
    if r < 0:
        raise OSError(-r, f"{what}: {os.strerror(-r)}")
    return r


def _shape(view, layout):
    """Format, width, height of an array's pixels."""
    if view.format != "B" or view.ndim not in (2, 3) or (view.ndim == 3 and view.shape[2] != 3):
        raise ValueError("an image is bytes, or uint8 of shape (height, width[, 3])")
    if layout is None:
        layout = MONO8 if view.ndim == 2 else RGB8
    if (layout == MONO8) != (view.ndim == 2) or layout == ENCODED:
        raise ValueError("the layout is not that of the array")
    return layout, view.shape[1], view.shape[0]


class Client:
    """A connection to kamend."""

    def __init__(self, endpoint=None, n_slots=0, slot_bytes=0, reconnect=None):
        """endpoint: path of data.sock; None: $KAMEN_RUNTIME/data.sock, else the system's.

        reconnect: seconds that requests wait for a daemon that is gone (None: 30); 0: its end is
        the client's.
        """
        self._lib = _library()
        self._pointer = ctypes.c_void_p()
        options = _Options(ctypes.sizeof(_Options), n_slots, slot_bytes)
        if reconnect is not None:
            options.reconnect_ns = int(reconnect * 1e9)
            options.flags = 0 if reconnect else _NO_RECONNECT
        _check(self._lib.kamen_client_connect(
            ctypes.byref(self._pointer), None if endpoint is None else os.fsencode(endpoint),
            ctypes.byref(options)), endpoint or "kamend")

    def close(self):
        """Ends the session. What is in flight is forgotten."""
        self._pointer = ctypes.c_void_p(self._lib.kamen_client_free(self._pointer))

    @property
    def _client(self):
        if not self._pointer:
            raise ValueError("the client is closed")
        return self._pointer

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def fileno(self):
        """For select, poll and asyncio: readable when process() has something to do."""
        return _check(self._lib.kamen_client_get_fd(self._client), "fd")

    def submit(self, site, image, *, verb=INFER, layout=None, embedding=False, hardness=False,
               version=None, timeout=None, trigger_id=0, part_id=0, capture_us=0, encoder=0):
        """Hands an image over and returns the request's id.

        layout: RGB8 or BGR8 of an array; timeout: seconds until the answer is NO_VERDICT; version:
        of the mask, None: the champion. OSError EBUSY: every slot is in flight, take a result first.
        """
        view = memoryview(image)
        request = _Request(ctypes.sizeof(_Request), verb, ENCODED, site.encode(), view.nbytes)
        if view.ndim > 1:
            request.format, request.width, request.height = _shape(view, layout)
        if timeout is not None:
            request.deadline_ns = time.monotonic_ns() + int(timeout * 1e9)
        if version is not None:
            request.mask, request.version = 1, version
        request.flags = (WANT_EMBEDDING if embedding else 0) | (WANT_HARDNESS if hardness else 0)
        request.trigger_id, request.part_id = trigger_id, part_id
        request.capture_us, request.encoder = capture_us, encoder
        return self._send(view, request)

    def _send(self, view, request):
        frame, number = _Frame(), _u64()
        _check(self._lib.kamen_frame_acquire(self._client, view.nbytes, ctypes.byref(frame)),
               "a frame")
        try:
            at = memoryview((ctypes.c_uint8 * view.nbytes).from_address(frame.data)).cast("B")
            at[:] = view.cast("B") if view.c_contiguous else view.tobytes()
            _check(self._lib.kamen_submit(self._client, ctypes.byref(frame), ctypes.byref(request),
                                          ctypes.byref(number)), "the request")
        except BaseException:
            self._lib.kamen_frame_discard(self._client, ctypes.byref(frame))
            raise
        return number.value

    def _take(self, raw):
        fields = {name: getattr(raw, name) for name in Result._fields}
        fields["verdict"] = self._lib.kamen_verdict_name(raw.verdict).decode()
        fields["reason"], fields["label"] = raw.reason.decode(), raw.label.decode()
        fields["space"] = ctypes.string_at(raw.space, 32)
        for name, n in (("embedding", raw.n_embedding), ("hardness", raw.n_hardness)):
            fields[name] = array("f", ctypes.string_at(getattr(raw, name), 4 * n) if n else b"")
        self._lib.kamen_release(self._client, ctypes.byref(raw))
        return Result(**fields)

    def wait(self, timeout=None):
        """The next result, of whatever request; TimeoutError."""
        until = FOREVER if timeout is None else int(timeout * 1e9)
        raw = _Result()
        while (r := self._lib.kamen_wait(self._client, until, ctypes.byref(raw))) == -errno.EINTR:
            pass
        _check(r, "a result")
        return self._take(raw)

    def process(self):
        """Takes what has arrived, never blocks, and returns the results."""
        _check(self._lib.kamen_process(self._client), "process")
        raw, results = _Result(), []
        while _check(self._lib.kamen_next(self._client, ctypes.byref(raw)), "a result"):
            results.append(self._take(raw))
        return results

    def next_call(self):
        """Seconds until process() has to be called at the latest; None: no matter."""
        until = _u64()
        _check(self._lib.kamen_client_get_timeout(self._client, ctypes.byref(until)), "timeout")
        return None if until.value == FOREVER else max(0, until.value / 1e9 - time.monotonic())

    def _ask(self, number):
        result = self.wait()
        if result.id != number:
            raise RuntimeError("requests are in flight: use submit() and wait()")
        return result

    def infer(self, site, image, **options):
        """submit() and wait(), where nothing else is in flight."""
        return self._ask(self.submit(site, image, **options))

    def push(self, site, image, **options):
        """An unlabelled image to learn from; the answer comes once it is durable."""
        return self._ask(self.submit(site, image, verb=PUSH, **options))
