"""A picture for every planted pin: one small SVG data URI that any browser shows offline.

The scene says the root topic, the colours say the leaf and the style, and the pin's own numbers move the
shapes, so that a feed of these pictures shows at a glance what it is about. Under 600 bytes each.
"""

from __future__ import annotations

import colorsys

import numpy as np

WIDTH = 236
HEIGHTS = (177, 236, 295, 330, 354)
"""Several shapes of picture, as a masonry needs."""

NUMBERS = 8
"""Random integers in [0, 1000) that one picture takes."""

PALETTE_VARIANTS = 4

# style -> saturation and lightness of the ground, of the shapes, and how far the hues spread (degrees)
_STYLE_LAWS = (
    (0.38, 0.80, 0.45, 0.46, 24),  # rustic
    (0.16, 0.93, 0.30, 0.62, 14),  # minimal
    (0.42, 0.84, 0.48, 0.55, 60),  # vintage
    (0.72, 0.60, 0.82, 0.54, 110),  # bold
    (0.70, 0.92, 0.62, 0.79, 70),  # pastel
    (0.38, 0.17, 0.55, 0.50, 40),  # dark
    (0.30, 0.86, 0.38, 0.48, 50),  # natural
    (0.55, 0.90, 0.80, 0.45, 180),  # modern
)


def palettes(leaf_root: np.ndarray) -> list[list[list[tuple[str, ...]]]]:
    """Five `%23rrggbb` colours (ground top, ground bottom, three of shapes) by leaf, style and variant."""
    out = []
    for leaf, root in enumerate(leaf_root):
        hue = 360 / 8 * int(root) + 15 + 11 * (leaf % 6)
        out.append([[_palette(hue + 17 * v, law) for v in range(PALETTE_VARIANTS)] for law in _STYLE_LAWS])
    return out


def _palette(hue: float, law: tuple[float, float, float, float, int]) -> tuple[str, ...]:
    ground_saturation, ground, saturation, shape, spread = law
    lift = -0.10 if ground > 0.5 else 0.12
    return (
        _hex(hue, ground_saturation, ground),
        _hex(hue + spread / 3, ground_saturation, ground + lift),
        _hex(hue + spread, saturation, shape),
        _hex(hue - spread / 2, saturation, min(shape + 0.16, 0.95)),
        _hex(hue + 20, ground_saturation, 0.97 if ground < 0.9 else 1.0),
    )


def _hex(hue: float, saturation: float, lightness: float) -> str:
    rgb = colorsys.hls_to_rgb(hue % 360 / 360, lightness, saturation)
    return "%23" + "".join(f"{round(255 * c):02x}" for c in rgb)


def picture(root: int, colours: tuple[str, ...], n: list[int]) -> str:
    """The data URI of one pin.

    Parameters
    ----------
    root : 0-based root topic, which of the eight scenes.
    colours : five colours of `palettes`.
    n : NUMBERS integers in [0, 1000).
    """
    h = HEIGHTS[n[0] % len(HEIGHTS)]
    top, bottom, a, b, c = colours
    return (
        f"data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{h}'%3E"
        f"%3ClinearGradient id='g' y2='1'%3E%3Cstop stop-color='{top}'/%3E"
        f"%3Cstop offset='1' stop-color='{bottom}'/%3E%3C/linearGradient%3E"
        f"%3Cpath fill='url(%23g)' d='M0 0h{WIDTH}v{h}H0'/%3E"
        f"{_SCENES[root](h, a, b, c, n)}%3C/svg%3E"
    )


_ROUND = " stroke-linecap='round'"


def _path(d: str, fill: str) -> str:
    return f"%3Cpath fill='{fill}' d='{d}'/%3E"


def _line(d: str, colour: str, width: int, ends: str = "") -> str:
    return f"%3Cpath fill='none' stroke='{colour}' stroke-width='{width}'{ends} d='{d}'/%3E"


def _dot(x: int, y: int, r: int, fill: str) -> str:
    return f"%3Ccircle cx='{x}' cy='{y}' r='{r}' fill='{fill}'/%3E"


def _food(h: int, a: str, b: str, c: str, n: list[int]) -> str:
    x, y, r = 98 + n[1] % 40, h // 2 - 12 + n[2] % 24, 66 + n[3] % 14
    d = n[4] % 26
    return (
        _dot(x, y, r, c)
        + _dot(x, y, r - 13, b)
        + _dot(x - 18, y - d + 8, 24, a)
        + _dot(x + 22, y + d - 16, 15 + n[5] % 8, c)
        + _dot(x + 4 - d, y + 26, 10 + n[6] % 6, a)
    )


def _home(h: int, a: str, b: str, c: str, n: list[int]) -> str:
    x, w, f = 24 + n[1] % 90, 60 + n[2] % 30, h - 44 - n[3] % 20
    s = 118 + n[4] % 50
    return (
        _path(f"M{x} {f}V{f - 62}a{w // 2} {w // 2} 0 0 1 {w} 0v62", c)
        + _path(f"M0 {f}h236v99H0", b)
        + _path(f"M{s - 70} {f + 14}q0-42 16-42h88q16 0 16 42", a)
        + _line(f"M{s + 30} {f - 28}V0", a, 3)
        + _path(f"M{s + 8} {48 + n[5] % 20}h44l-10-26h-24", c)
    )


def _garden(h: int, a: str, b: str, c: str, n: list[int]) -> str:
    x, y = 88 + n[1] % 60, 30 + n[2] % 40
    s = 34 + n[3] % 26
    m, t = (h + y) // 2, s + 22
    return (
        _dot(x, y + 26, 44 + n[4] % 20, c)
        + _line(f"M{x} {h}V{y}", a, 4)
        + _path(f"M{x} {m}q{-s}-8{-t}-56q{s + 8} 0 {t} 56m0 34q{s}-8 {t}-56q{-s - 8} 0{-t} 56", a)
        + _path(f"M{x} {y + 40}q-38-26 0-64q38 38 0 64", b)
    )


def _travel(h: int, a: str, b: str, c: str, n: list[int]) -> str:
    p, q = 50 + n[1] % 60, 150 + n[2] % 50
    y = h - 120 - n[3] % 30
    return (
        _dot(40 + n[4] % 156, 46 + n[5] % 24, 22 + n[6] % 10, c)
        + _path(f"M-30 {h}L{p} {y + 20}L{p + 110} {h}", b)
        + _path(f"M40 {h}L{q} {y}L290 {h}", a)
        + _path(f"M{q} {y}l-18 34 12-7 8 10 10-12 9 6", c)
        + _path(f"M0 {h}v-30q60-26 118-8t118-8v46", b)
    )


def _fashion(h: int, a: str, b: str, c: str, n: list[int]) -> str:
    x, s = 40 + n[1] % 40, 18 + n[2] % 30
    w = 44 + n[3] % 30
    return (
        _path(f"M{x} 0q{s} {h // 2} 0 {h}h{w}q{s}-{h // 2} 0-{h}", a)
        + _path(f"M{x + w + 26} 0q{-s} {h // 2} 0 {h}h30q{-s}-{h // 2} 0-{h}", b)
        + _line(f"M{x + w + 10} 0q{s} {h // 2} 0 {h}", c, 3)
        + _dot(x + w // 2, 40 + n[4] % 60, 8, c)
    )


def _art(h: int, a: str, b: str, c: str, n: list[int]) -> str:
    x, y, r = 70 + n[1] % 100, 60 + n[2] % 50, 40 + n[3] % 26
    z = h - 60 - n[4] % 30
    return (
        _dot(x, y, r, a)
        + _path(f"M{210 - x} {z}a{r} {r} 0 0 1 {2 * r} 0", b)
        + _line(f"M20 {z}q50-{60 + n[5] % 50} 98 0t98 0", c, 9, _ROUND)
        + _dot(236 - x, y + 44, 14, c)
    )


def _wellness(h: int, a: str, b: str, c: str, n: list[int]) -> str:
    x, y, r = 78 + n[1] % 80, h // 2 - 30 + n[2] % 20, 36 + n[3] % 16
    z = y + r - n[4] % 20
    return (
        _dot(x, y, r + 24, c)
        + _dot(x, y, r, a)
        + _path(f"M0 {z}q59-40 118 0t118 0v{h}H0", b)
        + _path(f"M0 {z + 30 + n[5] % 16}q59 36 118 0t118 0v{h}H0", a)
    )


def _making(h: int, a: str, b: str, c: str, n: list[int]) -> str:
    s = 52 + n[3] % 20
    t = s + 14
    x, y = 36 + n[1] % 50, h // 2 - s - 20 + n[2] % 26
    return (
        _path(f"M{x} {y}h{s}v{s}h-{s}", a)
        + _dot(x + t + s // 2, y + s // 2, s // 2, b)
        + _path(f"M{x} {y + t + s}l{s // 2}-{s} {s // 2} {s}", c)
        + _path(f"M{x + t} {y + t}h{s}v{s}h-{s}", a)
        + _dot(x + t + s // 2, y + t + s // 2, 12 + n[4] % 10, c)
    )


_SCENES = (_food, _home, _garden, _travel, _fashion, _art, _wellness, _making)
