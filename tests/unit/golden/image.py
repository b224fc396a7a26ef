#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Goldens of tests/unit/image.c and resize.c, by PIL 9.4 (Debian 12: python3-pil, python3-numpy).

Writes beside itself
  image/NAME.EXT, image/NAME.raw  a file and what it must decode to: u32 width, height, channels,
                                  tolerance, then the pixels
  resize.bin                      cases of u32 width, height, channels, dst_width, dst_height, filter
                                  (0 bilinear, 1 bicubic), f32 box (x, y, width, height), pixels;
                                  the source is made by the formula of source()
"""
import io, os, struct, zlib
import numpy as np
from PIL import Image

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "image")


def source(width, height, channels):
    """Waves, an edge and noise from a 32-bit LCG: the twin of fill_source() in resize.c."""
    state, out = 12345, np.zeros((height, width, channels), np.uint8)
    for y in range(height):
        for x in range(width):
            for c in range(channels):
                state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
                v = (x * (c + 3) * 7 + y * 11) % 200 + (state >> 27)
                out[y, x, c] = 255 if x > 2 * y else v
    return out


def pil(a):
    return Image.fromarray(a[:, :, 0] if a.shape[2] == 1 else a)


def put(name, data, pixels, tolerance=0):
    open(os.path.join(OUT, name), "wb").write(data)
    h, w, c = pixels.shape
    raw = struct.pack("<4I", w, h, c, tolerance) + np.ascontiguousarray(pixels, np.uint8).tobytes()
    open(os.path.join(OUT, name + ".raw"), "wb").write(raw)


def save(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, depth, colour, rows, extra=b"", interlace=0):
    """PIL cannot write every kind."""
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))
            + extra + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b""))


def rows_of(samples, depth):
    """samples (height, width * n) at their depth, each row behind filter byte 0."""
    out = b""
    for row in samples:
        if depth == 16:
            out += b"\0" + row.astype(">u2").tobytes()
        elif depth == 8:
            out += b"\0" + row.astype(np.uint8).tobytes()
        else:
            bits = "".join(format(v, "0%db" % depth) for v in row)
            bits += "0" * (-len(bits) % 8)
            out += b"\0" + bytes(int(bits[i:i + 8], 2) for i in range(0, len(bits), 8))
    return out


def adam7(samples, n, depth):
    out = b""
    for x0, y0, dx, dy in ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)):
        part = samples.reshape(samples.shape[0], -1, n)[y0::dy, x0::dx]
        if part.size:
            out += rows_of(part.reshape(part.shape[0], -1), depth)
    return out


def images():
    w, h = 21, 13
    rgb, grey = source(w, h, 3), source(w, h, 1)
    rng = np.random.RandomState(1)
    for name, image, options in (
            ("rgb_444.jpg", pil(rgb), dict(quality=90, subsampling=0)),
            ("rgb_420.jpg", pil(rgb), dict(quality=75, subsampling=2)),
            ("progressive.jpg", pil(rgb), dict(quality=75, subsampling=2, progressive=True)),
            ("grey.jpg", pil(grey), dict(quality=85)),
            ("cmyk.jpg", pil(rgb).convert("CMYK"), dict(quality=95, subsampling=0))):
        data = save(image, "JPEG", **options)
        back = Image.open(io.BytesIO(data))
        back = np.asarray(back.convert("RGB") if back.mode == "CMYK" else back)
        put(name, data, back.reshape(h, w, -1), 1 if name == "cmyk.jpg" else 0)
    put("rgb8.png", save(pil(rgb), "PNG"), rgb)
    put("grey8.png", save(pil(grey), "PNG"), grey)
    put("rgb.ppm", save(pil(rgb), "PPM"), rgb)
    put("grey.pgm", save(pil(grey), "PPM"), grey)
    put("comment.pgm", b"P5 # by hand\n# \n 3\t2 #\n100\n" + bytes([0, 1, 50, 99, 100, 25]),
        np.array([0, 3, 128, 252, 255, 64]).reshape(2, 3, 1))
    for n, colour, name in ((1, 0, "grey"), (2, 4, "grey_alpha"), (3, 2, "rgb"), (4, 6, "rgba")):
        keep = 1 if n < 3 else 3
        for depth in (8, 16):
            a = rng.randint(0, 1 << depth, (h, w, n))
            want = (a >> (depth - 8))[:, :, :keep]
            put("%s%d_raw.png" % (name, depth), png(w, h, depth, colour, rows_of(a.reshape(h, -1), depth)), want)
            if n == 4 or depth == 16:
                put("%s%d_interlaced.png" % (name, depth),
                    png(w, h, depth, colour, adam7(a.reshape(h, -1), n, depth), interlace=1), want)
    for depth in (1, 2, 4):
        a = rng.randint(0, 1 << depth, (h, w))
        put("grey%d.png" % depth, png(w, h, depth, 0, rows_of(a, depth)), (a * 255 // ((1 << depth) - 1)).reshape(h, w, 1))
    for depth in (1, 2, 4, 8):
        a = rng.randint(0, 1 << depth, (h, w))
        palette = rng.randint(0, 256, (1 << depth, 3)).astype(np.uint8)
        extra = chunk(b"PLTE", palette.tobytes()) + (chunk(b"tRNS", b"\0\x80") if depth == 8 else b"")
        put("palette%d.png" % depth, png(w, h, depth, 3, rows_of(a, depth), extra), palette[a])


def resizes():
    out = b""
    for w, h, c, dw, dh, kind, box in (
            (31, 17, 3, 16, 16, 1, None), (31, 17, 1, 16, 16, 1, None), (31, 17, 3, 16, 16, 0, None),
            (17, 31, 3, 40, 45, 1, None), (17, 31, 1, 40, 45, 0, None), (64, 64, 3, 7, 9, 1, None),
            (64, 64, 3, 7, 9, 0, None), (200, 150, 1, 13, 11, 1, None), (20, 20, 3, 20, 20, 1, None),
            (20, 20, 3, 20, 9, 1, None), (20, 20, 1, 9, 20, 0, None), (1, 1, 3, 5, 4, 1, None),
            (2, 3, 1, 1, 1, 1, None), (90, 1, 3, 8, 8, 1, None),
            (50, 40, 3, 16, 16, 1, (10, 5, 20, 30)), (50, 40, 3, 16, 16, 0, (10.25, 5.5, 20.125, 30.75)),
            (50, 40, 1, 24, 20, 1, (30, 20, 20, 20)), (50, 40, 3, 12, 12, 0, (0.5, 0.25, 3.5, 2.25))):
        image = pil(source(w, h, c))
        x, y, bw, bh = box or (0, 0, w, h)
        got = image.resize((dw, dh), (Image.BILINEAR, Image.BICUBIC)[kind], box=(x, y, x + bw, y + bh))
        out += struct.pack("<6I4f", w, h, c, dw, dh, kind, x, y, bw, bh) + np.asarray(got).tobytes()
    open(os.path.join(HERE, "resize.bin"), "wb").write(out)


os.makedirs(OUT, exist_ok=True)
images()
resizes()
