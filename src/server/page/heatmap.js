// The chosen expert of each token, layer by layer: tokens from left to right, layers from top to bottom.
import {element} from "./dom.js";

const CELL = 20;    // pixels
const HEAD = 64;    // for the tokens' texts
const SIDE = 34;    // for the layers' numbers
const GAP = 10;

/** A colour of each expert: neighbours differ. */
export function expertColour(expert, count, alpha = 1) {
  const hue = count <= 12 ? (expert * 360) / count : (expert * 137.508) % 360;
  return `hsla(${hue + 200}, 65%, 52%, ${alpha})`;
}

/** A token's text as something that can be seen. */
export const shownToken = (text) => text.replace(/\n/g, "\u21b5").replace(/\t/g, "\u21e5").replace(/^ | $/g, "\u00b7") || "\u2205";

export function cellText(data, at, row) {
  const width = data.experts_per_token;
  const token = `"${shownToken(data.tokens[at])}", position ${at}`;
  const experts = data.experts[at];
  if (!experts) return `${token}: ${at < data.cached_tokens ? "came from the cache" : "was not read by the model"}`;
  const layer = Math.floor(row / width), choice = row % width;
  return `${token}, layer ${data.layers[layer]}: expert ${experts[layer][choice]}, score ${data.scores[at][layer][choice].toFixed(3)}`;
}

export class HeatMap {
  /** Of the tokens `from` to `to`; `onpoint(text, position)` says what is under the pointer or cursor. */
  constructor(root, data, from, to, onpoint) {
    Object.assign(this, {root, data, from, to, onpoint, rows: data.layers.length * data.experts_per_token});
    this.cursor = {at: from, row: 0};
    this.blocks = [];
    root.tabIndex = 0;
    root.setAttribute("role", "application");
    root.setAttribute("aria-label", `Experts of ${to - from} tokens in ${data.layers.length} layers; the arrow keys go from one to the next`);
    root.addEventListener("keydown", (event) => this.move(event));
    this.watch = new IntersectionObserver((entries) => {
      for (const entry of entries) if (entry.isIntersecting) this.draw(this.blocks.find((block) => block.canvas === entry.target));
    });
    this.resize = new ResizeObserver(() => this.layOut());
    this.resize.observe(root);
    this.followTheme();
  }

  /** Canvases do not take on other colours by themselves. */
  followTheme() {
    const until = new AbortController();
    const redraw = () => {
      if (!this.root.isConnected) return until.abort();
      for (const block of this.blocks) this.draw(block);
    };
    const chosen = new MutationObserver(redraw);
    chosen.observe(document.documentElement, {attributes: true, attributeFilter: ["data-theme"]});
    until.signal.addEventListener("abort", () => chosen.disconnect());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw, {signal: until.signal});
  }

  /** One canvas per line of tokens, each drawn when it comes into view. */
  layOut() {
    const columns = Math.max(4, Math.floor((this.root.clientWidth - SIDE) / CELL));
    if (columns === this.columns || this.root.clientWidth === 0) return;
    this.columns = columns;
    this.watch.disconnect();
    this.blocks = [];
    for (let begin = this.from; begin < this.to; begin += columns) {
      const end = Math.min(begin + columns, this.to);
      const canvas = element("canvas", {"aria-hidden": "true"});
      const block = {canvas, begin, end, width: SIDE + (end - begin) * CELL, height: HEAD + this.rows * CELL + GAP};
      canvas.style.width = block.width + "px";
      canvas.style.height = block.height + "px";
      canvas.addEventListener("pointermove", (event) => this.point(event, block));
      canvas.addEventListener("pointerdown", (event) => this.point(event, block));
      this.blocks.push(block);
    }
    this.root.replaceChildren(...this.blocks.map((block) => block.canvas));
    for (const block of this.blocks) this.watch.observe(block.canvas);
  }

  draw(block) {
    const scale = window.devicePixelRatio || 1;
    block.canvas.width = block.width * scale;
    block.canvas.height = block.height * scale;
    const paint = block.canvas.getContext("2d");
    paint.scale(scale, scale);
    const style = getComputedStyle(this.root);
    paint.font = "11px " + style.fontFamily;
    paint.fillStyle = style.color;
    this.drawNames(paint, block);
    for (let at = block.begin; at < block.end; ++at) this.drawToken(paint, block, at, style.color);
    if (this.cursor.at >= block.begin && this.cursor.at < block.end) {
      paint.strokeStyle = style.color;
      paint.lineWidth = 2;
      paint.strokeRect(SIDE + (this.cursor.at - block.begin) * CELL, HEAD + this.cursor.row * CELL, CELL - 1, CELL - 1);
    }
  }

  drawNames(paint, block) {
    paint.textAlign = "right";
    paint.textBaseline = "middle";
    for (let row = 0; row < this.rows; row += this.data.experts_per_token)
      paint.fillText(String(this.data.layers[row / this.data.experts_per_token]), SIDE - 5, HEAD + row * CELL + CELL / 2);
    paint.textAlign = "left";
    for (let at = block.begin; at < block.end; ++at) {
      paint.save();
      paint.translate(SIDE + (at - block.begin) * CELL + CELL / 2, HEAD - 4);
      paint.rotate(-Math.PI / 2);
      paint.fillText(shownToken(this.data.tokens[at]).slice(0, 10), 0, 0, HEAD - 6);
      paint.restore();
    }
  }

  drawToken(paint, block, at, colour) {
    const {data} = this;
    const x = SIDE + (at - block.begin) * CELL;
    for (let row = 0; row < this.rows; ++row) {
      const layer = Math.floor(row / data.experts_per_token), choice = row % data.experts_per_token;
      const y = HEAD + row * CELL;
      if (!data.experts[at]) {
        paint.strokeStyle = colour;
        paint.globalAlpha = 0.25;
        paint.strokeRect(x + 0.5, y + 0.5, CELL - 2, CELL - 2);
        paint.globalAlpha = 1;
        continue;
      }
      const expert = data.experts[at][layer][choice];
      paint.fillStyle = expertColour(expert, data.num_experts, 0.3 + 0.7 * data.scores[at][layer][choice]);
      paint.fillRect(x, y, CELL - 1, CELL - 1);
      paint.fillStyle = colour;
      paint.textAlign = "center";
      paint.fillText(String(expert), x + CELL / 2, y + CELL / 2, CELL - 2);
    }
  }

  point(event, block) {
    const at = block.begin + Math.floor((event.offsetX - SIDE) / CELL), row = Math.floor((event.offsetY - HEAD) / CELL);
    if (event.offsetX < SIDE || at >= block.end || row < 0 || row >= this.rows) return;
    this.go(at, row);
  }

  move(event) {
    const steps = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
    if (!steps) return;
    event.preventDefault();
    const within = (value, least, most) => Math.min(Math.max(value, least), most);
    this.go(within(this.cursor.at + steps[0], this.from, this.to - 1), within(this.cursor.row + steps[1], 0, this.rows - 1));
  }

  go(at, row) {
    if (at === this.cursor.at && row === this.cursor.row && this.said) return;
    const before = this.cursor.at;
    this.cursor = {at, row};
    this.said = true;
    for (const block of this.blocks) {
      const holds = (position) => position >= block.begin && position < block.end;
      if (holds(before) || holds(at)) this.draw(block);
    }
    this.onpoint(cellText(this.data, at, row), at);
  }
}
