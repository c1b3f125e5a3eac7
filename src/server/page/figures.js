// What the engine does now: asked for again and again while the page is seen.
import {counted, element, find, say} from "./dom.js";
import {askJson} from "./server.js";

const BUSY = 1000, IDLE = 4000;  // milliseconds between questions

let last = null, down = false, timer = 0, busy = false, onkey = () => {};

/** An answer is being written: the figures change. */
export function setBusy(is) {
  busy = is;
  if (is) ask();
}

/** `whenkey`: the server asks for a key. */
export function startFigures(whenkey) {
  onkey = whenkey;
  document.addEventListener("visibilitychange", () => { if (!document.hidden) ask(); });
  ask();
}

async function ask() {
  clearTimeout(timer);
  if (document.hidden) return;
  try {
    const json = await askJson("requests");
    show(json);
    setDown("");
  } catch (error) {
    if (error.status === 401 && !down) onkey();
    find("speed").textContent = "\u2013";
    last = null;
    setDown(error.status === 0 ? "The server cannot be reached. It is asked again until it answers." : error.message);
  }
  clearTimeout(timer);
  timer = setTimeout(ask, down || busy || last?.running > 0 ? BUSY : IDLE);
}

function setDown(message) {
  find("down").hidden = message === "";
  if (find("down").textContent !== message) find("down").textContent = message;
  if (down && message === "") say("The server answers again");
  down = message !== "";
}

const bytes = (number) => (number >= 1e9 ? (number / 1e9).toFixed(1) + " GB" : (number / 1e6).toFixed(number < 1e7 ? 1 : 0) + " MB");

function poolRow(pool) {
  const share = (blocks) => (100 * blocks) / Math.max(pool.blocks, 1);
  const bar = element("div", {className: "pool", role: "img", "aria-label": `${share(pool.used).toFixed(0)} % in use, ${share(pool.kept).toFixed(0)} % kept`});
  for (const kind of ["used", "kept"]) {
    const part = element("span", {className: kind});
    part.style.width = share(pool[kind]) + "%";
    bar.append(part);
  }
  return element("div", {className: "figure"},
    element("span", {}, `Cache, ${pool.pool} layers`),
    element("span", {}, `${counted(pool.used)} used + ${counted(pool.kept)} kept of ${counted(pool.blocks)} blocks (${bytes(pool.blocks * pool.block_bytes)})`), bar);
}

const row = (name, value) => element("div", {className: "figure"}, element("span", {}, name), element("span", {}, value));

function show(json) {
  const engine = json.engine, now = performance.now();
  let speed = 0;
  if (last) speed = Math.max(0, ((engine.generated_tokens - last.generated_tokens) * 1000) / (now - last.now));
  last = {now, generated_tokens: engine.generated_tokens, running: engine.running};
  const shown = speed > 0 && speed < 10 ? speed.toFixed(1) : counted(Math.round(speed));
  find("model").textContent = json.model;
  find("speed").textContent = shown + " tokens/s";
  const read = engine.prompt_tokens, reused = engine.reused_tokens;
  const rows = [
    row("Tokens per second now", shown),
    row("Answers", `${counted(engine.running)} running, ${counted(engine.waiting)} waiting`),
    ...engine.cache.filter((pool) => pool.blocks > 0).map(poolRow),
    row("Of prompts, from the cache", read > 0 ? `${Math.round((100 * reused) / read)} % of ${counted(read)} tokens` : "no prompt yet"),
    row("Experts", engine.experts ? `${(100 * engine.experts.hit_rate).toFixed(1)} % of ${counted(engine.experts.uses)} uses were in memory` : "all in memory"),
  ];
  find("engine").replaceChildren(...rows);
}
