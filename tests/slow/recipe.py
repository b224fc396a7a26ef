# SPDX-License-Identifier: Apache-2.0
"""The study of the recipe: runs what has no line yet, then draws and tells what there is.

recipe.py [--draw] [--csv FILE] [--svg FILE] PROGRAM [OPTION of it]...

--draw: run nothing. One panel a factor; see the text in the drawing.
"""

import argparse
import csv
import os
import subprocess
import sys
from html import escape

HERE = os.path.dirname(os.path.abspath(__file__))
FIGURES = ("knn", "shot1", "shot5")
COLOURS = {"knn": "#0072B2", "shot1": "#D55E00", "shot5": "#009E73"}
# What a factor changes: where the default's own value stands. The native size has another default.
FIELDS = {"travel": "travel", "steps": "steps", "precision": "precision", "batch": "batch",
          "spread": "score_spread", "prototypes": "n_prototypes", "optimiser": "optimiser",
          "warm-up": "warm_up"}
COLUMNS, WIDTH, HEIGHT = 2, 520, 300
LEFT, TOP, RIGHT, BOTTOM = 48, 30, 10, 52
HEAD = 74
LOWEST = -.15


def read(path):
    """Whole lines only: a torn one has no recipe."""
    with open(path, encoding="utf-8", newline="") as file:
        lines = [line for line in csv.DictReader(file) if line.get("recipe")]
    for line in lines:
        line.update(pair.split("=", 1) for pair in line["recipe"].split()
                    if pair.split("=", 1)[0] not in line)
    return lines


def of_one_study(lines):
    """Those comparable with the last default; of other precisions what was run to compare them."""
    defaults = [line for line in lines if line["factor"] == "default"]
    last = defaults[-1] if defaults else lines[-1]
    same = [line for line in lines
            if line["model"] == last["model"] and line["images"] == last["images"]]
    return [line for line in same
            if line["factor"] == "precision" or line["precision"] == last["precision"]]


def gain(line, figure, place=""):
    return float(line[figure + place]) - float(line[f"{figure}{place}_frozen"])


def order(value):
    """Word by word, numbers by size and before letters."""
    def key(word):
        try:
            return (0, float(word), "")
        except ValueError:
            return (1, 0, word)
    return [key(word.strip(",")) for word in value.split()]


def panels(lines):
    """factor -> value -> lines, the default among them."""
    found = {}
    defaults = [line for line in lines if line["factor"] == "default"]
    for line in lines:
        if line["factor"] != "default":
            found.setdefault(line["factor"], {}).setdefault(line["value"], []).append(line)
    for factor, values in found.items():
        for line in defaults if factor in FIELDS else []:
            values.setdefault(line[FIELDS[factor]], []).append(line)
        found[factor] = dict(sorted(values.items(), key=lambda item: order(item[0])))
    return {"default": {"all seeds": defaults}, **found} if not found and defaults else found


class Drawing:
    """SVG elements, and where a gain lies in a panel."""

    def __init__(self, lines):
        gains = [gain(line, figure, place) for line in lines for figure in FIGURES
                 for place in ("", "_native")] + [0, .05]
        self.low, self.high = max(min(gains), LOWEST) - .01, max(gains) + .02
        self.parts = []

    def y(self, value):
        share = (value - self.low) / (self.high - self.low)
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - min(max(share, 0), 1))

    def add(self, text):
        self.parts.append(text)

    def text(self, x, y, text, size=11, more=""):
        self.add(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" {more}>{escape(text)}</text>')


def draw_axis(drawing):
    tick = round(drawing.low / .05) * .05
    while tick <= drawing.high:
        if tick >= drawing.low:
            y = drawing.y(tick)
            stroke = "#555" if abs(tick) < 1e-9 else "#e4e4e4"
            drawing.add(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" '
                        f'stroke="{stroke}"/>')
            drawing.text(LEFT - 6, y + 4, f"{tick:+.2f}" if abs(tick) > 1e-9 else "0", 10,
                         'text-anchor="end"')
        tick += .05


def draw_band(drawing, defaults):
    """How far the default's seeds lie apart."""
    for figure in FIGURES if len(defaults) > 1 else []:
        gains = [gain(line, figure) for line in defaults]
        top, bottom = drawing.y(max(gains)), drawing.y(min(gains))
        drawing.add(f'<rect x="{LEFT}" y="{top:.1f}" width="{WIDTH - LEFT - RIGHT}" '
                    f'height="{max(bottom - top, 1):.1f}" fill="{COLOURS[figure]}" '
                    f'fill-opacity=".13"/>')


def draw_mark(drawing, line, figure, x):
    colour = COLOURS[figure]
    value = gain(line, figure)
    fill = colour if line["passed"] == "1" else "white"
    y = drawing.y(value)
    if value < drawing.low:
        drawing.add(f'<path d="M{x - 5:.1f} {y - 8:.1f}h10l-5 8z" fill="{fill}" '
                    f'stroke="{colour}"/>')
        drawing.text(x, y - 10, f"{value:+.2f}", 8, f'text-anchor="middle" fill="{colour}"')
    else:
        drawing.add(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{fill}" stroke="{colour}"/>')
    y = drawing.y(gain(line, figure, "_native"))
    drawing.add(f'<path d="M{x + 7:.1f} {y - 3:.1f}l3 3l-3 3l-3 -3z" fill="none" '
                f'stroke="{colour}"/>')


def draw_panel(drawing, factor, values, defaults, n):
    """x, y: of the panel in the sheet."""
    slot = (WIDTH - LEFT - RIGHT) / len(values)
    drawing.add(f'<g transform="translate({n % COLUMNS * WIDTH} '
                f'{HEAD + n // COLUMNS * HEIGHT})">')
    drawing.text(LEFT, 18, factor, 14, 'font-weight="bold"')
    draw_axis(drawing)
    if factor in FIELDS:
        draw_band(drawing, defaults)
    for i, (value, lines) in enumerate(values.items()):
        middle = LEFT + slot * (i + .5)
        for figure, shift in zip(FIGURES, (-.22, 0, .22)):
            for line in lines:
                draw_mark(drawing, line, figure, middle + shift * min(slot, 120))
        is_default = any(line["factor"] == "default" for line in lines)
        words = value.split(", ")
        for j, word in enumerate(words):
            drawing.text(middle, HEIGHT - BOTTOM + 15 + 11 * j, word, 10,
                         'text-anchor="middle"' + (' font-weight="bold"' if is_default else ""))
        density = sum(float(line["density"]) for line in lines) / len(lines)
        seconds = sum(float(line["seconds"]) for line in lines) / len(lines)
        drawing.text(middle, HEIGHT - BOTTOM + 17 + 11 * len(words),
                     f"{density:.4f} · {seconds:.0f} s", 8, 'text-anchor="middle" fill="#555"')
    drawing.add("</g>")


def draw_head(drawing, lines):
    last = lines[-1]
    drawing.text(LEFT, 20, "The recipe, one factor at a time", 16, 'font-weight="bold"')
    drawing.text(LEFT, 38, "NEU, held part: gain over the frozen model at the same size (dots), "
                 "and of the same mask over it at the model's native size (diamonds).", 11)
    drawing.text(LEFT, 53, "Hollow dots: held by the gate, or no mask at all. Band: the default's "
                 "seeds. Bold: the default. Below a value: density, seconds of learning.", 11)
    x = LEFT
    for figure in FIGURES:
        drawing.add(f'<circle cx="{x + 4}" cy="64" r="4" fill="{COLOURS[figure]}"/>')
        drawing.text(x + 12, 68, figure, 11)
        x += 70
    drawing.text(x, 68, f"{last['isa']}, {last['threads']} threads, model {last['model']}", 10,
                 'fill="#555"')


def draw(lines):
    lines = of_one_study(lines)
    found = panels(lines)
    defaults = [line for line in lines if line["factor"] == "default"]
    drawing = Drawing(lines)
    n_rows = (len(found) + COLUMNS - 1) // COLUMNS
    width, height = COLUMNS * WIDTH, HEAD + n_rows * HEIGHT
    draw_head(drawing, lines)
    for n, (factor, values) in enumerate(found.items()):
        draw_panel(drawing, factor, values, defaults, n)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" font-family="sans-serif">\n'
            f'<rect width="{width}" height="{height}" fill="white"/>\n'
            + "\n".join(drawing.parts) + "\n</svg>\n")


def tell(lines):
    """Mean gains of each value: at the size, and at the native one."""
    for factor, values in panels(of_one_study(lines)).items():
        for value, some in values.items():
            def mean(name):
                return sum(float(line[name]) for line in some) / len(some)
            words = [f"{factor} {value}:".ljust(36)]
            for place in ("", "_native"):
                words += [f"{sum(gain(line, f, place) for line in some) / len(some):+.3f}"
                          for f in FIGURES] + [" "]
            words.append(f"density {mean('density'):.4f} ({mean('lowest_density'):.3f}), "
                         f"retrieval {mean('retrieval'):.3f} ({mean('retrieval_frozen'):.3f}), "
                         f"margin {mean('margin'):.2f} ({mean('margin_frozen'):.2f}), "
                         f"{mean('seconds'):.0f} s, "
                         f"{sum(line['passed'] == '1' for line in some)} of {len(some)} passed")
            print(" ".join(words))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draw", action="store_true")
    parser.add_argument("--csv", default=os.path.join(HERE, "recipe.csv"))
    parser.add_argument("--svg", default=os.path.join(HERE, "recipe.svg"))
    parser.add_argument("program", nargs="?")
    options, more = parser.parse_known_args()
    status = 0
    if not options.draw:
        if not options.program:
            parser.error("no PROGRAM")
        status = subprocess.run([options.program, "--csv", options.csv, *more]).returncode
    if os.path.exists(options.csv) and (lines := read(options.csv)):
        tell(lines)
        with open(options.svg, "w", encoding="utf-8") as file:
            file.write(draw(lines))
        print(f"{len(lines)} lines drawn: {os.path.relpath(options.svg)}")
    return status


if __name__ == "__main__":
    sys.exit(main())
