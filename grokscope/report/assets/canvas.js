// Canvases: as sharp as the screen, in the colours of the style, drawn anew when either changes.

class Picture {
  // `draw(context, width, height, step)` draws; `height(width)` says how high; `tell(x, y)` what the pointer is at.
  constructor(host, page, { label, height, draw, tell }) {
    Object.assign(this, { page, height, paint: draw, tell });
    this.canvas = host.appendChild(html("canvas", { role: "img", "aria-label": label }));
    page.watchSize(host, () => this.draw());
    this.canvas.addEventListener("pointermove", (event) => {
      const said = tell && tell(event.offsetX, event.offsetY);
      page.tip(said ? event : null, said);
    });
    this.canvas.addEventListener("pointerleave", () => page.tip(null));
  }

  draw() {
    const width = Math.round(this.canvas.parentElement.clientWidth);
    if (width < 20) return;
    const height = Math.round(this.height(width));
    const ratio = this.page.printing || this.page.sharp ? 3 : window.devicePixelRatio || 1;
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
      this.canvas.style.height = `${height}px`;
    }
    Object.assign(this, { width, ratio, high: height });
    this.setStep(this.page.step);
  }

  setStep(step) {
    if (!this.width) return;
    const context = this.canvas.getContext("2d");
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.clearRect(0, 0, this.width, this.high);
    this.paint(context, this.width, this.high, step);
  }
}

const FONT = 'system-ui, "Segoe UI", "DejaVu Sans", sans-serif';

function write(context, text, x, y, { size = 11, colour, align = "left", baseline = "alphabetic", weight = 400 }) {
  context.font = `${weight} ${size}px ${FONT}`;
  context.textAlign = align;
  context.textBaseline = baseline;
  context.fillStyle = colour;
  context.fillText(text, x, y);
}

// A colour on the circle of hues, all of them as light as each other.
function hue(share, isDark) {
  return `oklch(${isDark ? 0.76 : 0.62} 0.13 ${Math.round(360 * share)})`;
}

const greatestCommon = (a, b) => (b ? greatestCommon(b, a % b) : a);
