"""A page of points that tell what they are under the pointer: one canvas and a script, nothing else is loaded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape

import numpy as np

from .._core.types import Array

_STEPS = 65535  # a map is so many units wide

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>__TITLE__</title>
<style>
html, body { margin: 0; height: 100%; font: 14px sans-serif; background: white; color: #333; }
canvas { display: block; width: 100vw; height: 100vh; touch-action: none; }
#told { position: fixed; display: none; padding: 3px 8px; background: white; border: 1px solid #999; border-radius: 3px;
  pointer-events: none; max-width: 60vw; overflow-wrap: anywhere; }
</style></head><body><canvas></canvas><div id="told"></div>
<script>
const data = __DATA__;
const canvas = document.querySelector("canvas"), told = document.getElementById("told");
const pen = canvas.getContext("2d"), n = data.x.length, radius = Math.max(1.2, Math.min(5, 160 / Math.sqrt(n)));
let zoom = 1, left = 0, top_ = 0, unit = 1, grabbed = null;
const place = i => [left + zoom * unit * data.x[i], top_ + zoom * unit * data.y[i]];
function fit() {
  const ratio = window.devicePixelRatio || 1, width = innerWidth, height = innerHeight;
  canvas.width = width * ratio; canvas.height = height * ratio;
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  unit = 0.94 * Math.min(width / data.width, height / data.height); zoom = 1;
  left = (width - unit * data.width) / 2; top_ = (height - unit * data.height) / 2;
  draw();
}
function draw(shown) {
  pen.clearRect(0, 0, innerWidth, innerHeight);
  for (const i of data.order) {
    const [x, y] = place(i);
    if (x < -9 || y < -9 || x > innerWidth + 9 || y > innerHeight + 9) continue;
    pen.globalAlpha = data.opacity ? data.opacity[i] / 100 : 0.85;
    pen.fillStyle = data.palette[data.color[i]];
    pen.beginPath(); pen.arc(x, y, radius, 0, 7); pen.fill();
  }
  if (shown >= 0) {
    const [x, y] = place(shown);
    pen.globalAlpha = 1; pen.strokeStyle = "#333"; pen.lineWidth = 2;
    pen.beginPath(); pen.arc(x, y, radius + 2, 0, 7); pen.stroke();
  }
}
canvas.addEventListener("pointermove", event => {
  if (grabbed) {
    left += event.clientX - grabbed[0]; top_ += event.clientY - grabbed[1];
    grabbed = [event.clientX, event.clientY]; draw(); return;
  }
  let nearest = -1, least = Math.pow(radius + 6, 2);
  for (let i = 0; i < n; i++) {
    const [x, y] = place(i), square = Math.pow(x - event.clientX, 2) + Math.pow(y - event.clientY, 2);
    if (square < least) { least = square; nearest = i; }
  }
  told.style.display = nearest < 0 ? "none" : "block";
  if (nearest >= 0) {
    told.textContent = data.text[nearest];
    told.style.left = Math.min(event.clientX + 12, innerWidth - told.offsetWidth - 4) + "px";
    told.style.top = Math.min(event.clientY + 12, innerHeight - told.offsetHeight - 4) + "px";
  }
  draw(nearest);
});
canvas.addEventListener("pointerdown", event => {
  grabbed = [event.clientX, event.clientY]; canvas.setPointerCapture(event.pointerId);
});
canvas.addEventListener("pointerup", () => { grabbed = null; });
canvas.addEventListener("wheel", event => {
  event.preventDefault();
  const by = Math.exp(-event.deltaY / 500);
  left = event.clientX + by * (left - event.clientX); top_ = event.clientY + by * (top_ - event.clientY);
  zoom *= by; draw();
}, { passive: false });
addEventListener("resize", fit);
fit();
</script></body></html>
"""


def hover_page(points: Array, colors: Array, opacity: Array | None, texts: Sequence[str], title: str) -> str:
    """The page of points in a plane, with a colour, an opacity and a text for each."""
    low, high = points.min(axis=0), points.max(axis=0)
    unit = _STEPS / max(float((high - low).max()), np.finfo(float).tiny)
    places = np.rint((points - low) * unit).astype(int)
    width, height = (max(int(side), 1) for side in np.rint((high - low) * unit))
    palette, numbers = np.unique(np.rint(255 * colors).astype(int), axis=0, return_inverse=True)
    data = {
        "x": places[:, 0].tolist(),
        "y": (height - places[:, 1]).tolist(),
        "width": width,
        "height": height,
        "palette": ["#{:02x}{:02x}{:02x}".format(*color) for color in palette.tolist()],
        "color": numbers.ravel().tolist(),
        "opacity": None if opacity is None else np.rint(85 * opacity).astype(int).tolist(),
        "order": np.random.default_rng(0).permutation(len(points)).tolist(),
        "text": list(texts),
    }
    told = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return _PAGE.replace("__TITLE__", escape(title)).replace("__DATA__", told)
