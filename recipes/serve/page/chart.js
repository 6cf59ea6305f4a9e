/* chart.js - curves on a canvas: points {x, y}, thin as they are, bold smoothed; dots for a second
 * series. The pointer shows the nearest point. */
import { colour, make, number, small } from './base.js';

/* An exponential mean without the bias of its beginning. */
export function smoothed(points, weight) {
  let sum = 0, share = 0;
  return points.map(({ x, y }) => {
    sum = weight * sum + (1 - weight) * y;
    share = weight * share + (1 - weight);
    return { x, y: sum / share };
  });
}

/* A few round numbers between lo and hi. */
function ticks(lo, hi, most) {
  const raw = (hi - lo) / most || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const out = [];
  for (let v = Math.ceil(lo / step) * step; v <= hi + step * 1e-9; v += step) out.push(v);
  return out;
}

function bounds(series, log) {
  const ys = series.flatMap((s) => s.map((p) => p.y)).filter((y) => Number.isFinite(y) && (!log || y > 0));
  const xs = series.flatMap((s) => s.map((p) => p.x));
  let lo = Math.min(...ys), hi = Math.max(...ys);
  if (log) [lo, hi] = [Math.log10(lo), Math.log10(hi)];
  if (!(hi > lo)) [lo, hi] = [lo - Math.abs(lo) * 0.1 - 1e-9, hi + Math.abs(hi) * 0.1 + 1e-9];
  const space = (hi - lo) * 0.06;
  const x0 = Math.min(...xs), x1 = Math.max(...xs);
  return { lo: lo - space, hi: hi + space, x0, x1: x1 > x0 ? x1 : x0 + 1 };
}

export function chart(title, name) {
  const canvas = make('canvas', {});
  const told = make('span', {});
  const caption = make('figcaption', {}, make('b', {}, title), told);
  const figure = make('figure', {}, caption, canvas);
  canvas.setAttribute('role', 'img');
  let shown = null;

  function draw(at) {
    const { raw, dots, weight, log } = shown;
    const ratio = window.devicePixelRatio || 1;
    const w = canvas.clientWidth, h = canvas.clientHeight;
    if (!w) return;
    canvas.width = w * ratio;
    canvas.height = h * ratio;
    const pen = canvas.getContext('2d');
    pen.scale(ratio, ratio);
    pen.font = '12px system-ui, sans-serif';
    if (raw.length + dots.length === 0) return;
    const b = bounds([raw, dots], log);
    const left = 52, right = 10, top = 8, bottom = 22;
    const px = (x) => left + (w - left - right) * (x - b.x0) / (b.x1 - b.x0);
    const py = (y) => top + (h - top - bottom) * (b.hi - (log ? Math.log10(y) : y)) / (b.hi - b.lo);
    pen.strokeStyle = colour('grid');
    pen.fillStyle = colour('soft');
    pen.lineWidth = 1;
    pen.textAlign = 'right';
    pen.textBaseline = 'middle';
    for (const v of ticks(b.lo, b.hi, h / 50)) {
      const y = py(log ? 10 ** v : v);
      pen.beginPath();
      pen.moveTo(left, y);
      pen.lineTo(w - right, y);
      pen.stroke();
      pen.fillText(small(log ? 10 ** v : Math.abs(v) < 1e-12 ? 0 : v), left - 8, y);
    }
    pen.textAlign = 'center';
    for (const v of ticks(b.x0, b.x1, w / 110).filter(Number.isInteger)) pen.fillText(number(v, 6), px(v), h - 8);
    const line = (points, style, width, alpha) => {
      pen.strokeStyle = style;
      pen.globalAlpha = alpha;
      pen.lineWidth = width;
      pen.lineJoin = 'round';
      pen.beginPath();
      points.forEach((p, i) => (i ? pen.lineTo(px(p.x), py(p.y)) : pen.moveTo(px(p.x), py(p.y))));
      pen.stroke();
      pen.globalAlpha = 1;
    };
    const good = raw.filter((p) => Number.isFinite(p.y) && (!log || p.y > 0));
    line(good, colour('leaf'), 1.2, weight > 0 ? 0.4 : 1);
    if (weight > 0) line(smoothed(good, weight), colour('leaf'), 2.4, 1);
    if (dots.length) {
      line(dots, colour('earth'), 1.2, 0.6);
      pen.fillStyle = colour('earth');
      for (const p of dots) {
        pen.beginPath();
        pen.arc(px(p.x), py(p.y), 3.5, 0, 7);
        pen.fill();
      }
    }
    let point = good[good.length - 1] ?? dots[dots.length - 1];
    if (at !== undefined) {
      const x = b.x0 + (b.x1 - b.x0) * (at - left) / (w - left - right);
      point = good.reduce((n, p) => (Math.abs(p.x - x) < Math.abs(n.x - x) ? p : n), good[0]);
      pen.strokeStyle = colour('soft');
      pen.beginPath();
      pen.moveTo(px(point.x), top);
      pen.lineTo(px(point.x), h - bottom);
      pen.stroke();
    }
    told.textContent = point ? number(point.x, 6) + ': ' + small(point.y) : '';
    if (point) canvas.setAttribute('aria-label', title + ': ' + small(good[0]?.y ?? point.y) + ' → ' + small(point.y));
  }

  canvas.addEventListener('pointermove', (e) => shown && shown.raw.length && draw(e.offsetX));
  canvas.addEventListener('pointerleave', () => shown && draw());
  new ResizeObserver(() => shown && draw()).observe(canvas);
  return {
    figure, name,
    show(raw, { dots = [], weight = 0, log = false } = {}) {
      shown = { raw, dots, weight, log };
      figure.hidden = raw.length + dots.length === 0;
      draw();
    },
  };
}
