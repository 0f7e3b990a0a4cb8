// Canvases as sharp as the screen, redrawn when their size, the theme or the step changes.

import { html } from "./elements.js";

const FONT = 'system-ui, "Segoe UI", "DejaVu Sans", sans-serif';
// The pixels per CSS pixel on paper and in a saved picture.
const PRINT_RATIO = 3;

export class Picture {
  // `paint(context, width, height, step)` draws. `height(width)` returns the height. `describe(x, y)` returns the
  // lines of the tooltip at a point, or null.
  constructor(host, page, { label, height, paint, describe }) {
    Object.assign(this, { page, height, paint });
    this.canvas = host.appendChild(html("canvas", { role: "img", "aria-label": label }));
    page.watchSize(host, () => this.draw());
    this.canvas.addEventListener("pointermove", (event) => {
      const rows = describe(event.offsetX, event.offsetY);
      page.showTip(rows ? event : null, rows);
    });
    this.canvas.addEventListener("pointerleave", () => page.showTip(null));
  }

  draw() {
    const width = Math.round(this.canvas.parentElement.clientWidth);
    if (width < 20) return;
    const height = Math.round(this.height(width));
    const isFine = this.page.isPrinting || this.page.isSaving;
    const ratio = isFine ? PRINT_RATIO : window.devicePixelRatio || 1;
    const [columns, rows] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (this.canvas.width !== columns || this.canvas.height !== rows) {
      this.canvas.width = columns;
      this.canvas.height = rows;
      this.canvas.style.height = `${height}px`;
    }
    Object.assign(this, { width, ratio, drawnHeight: height });
    this.setStep(this.page.step);
  }

  setStep(step) {
    if (!this.width) return;
    const context = this.canvas.getContext("2d");
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.clearRect(0, 0, this.width, this.drawnHeight);
    this.paint(context, this.width, this.drawnHeight, step);
  }
}

export function drawText(context, text, x, y, style) {
  const { size = 11, colour, align = "left", baseline = "alphabetic", weight = 400 } = style;
  context.font = `${weight} ${size}px ${FONT}`;
  context.textAlign = align;
  context.textBaseline = baseline;
  context.fillStyle = colour;
  context.fillText(text, x, y);
}

// Return a colour of the hue circle. All of them are equally light.
export function hue(share, isDark) {
  return `oklch(${isDark ? 0.76 : 0.62} 0.13 ${Math.round(360 * share)})`;
}
