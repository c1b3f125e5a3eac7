// What an answer's tokens did: experts by layer as a heat map and on the text, and the tiles of pictures.
import {counted, element} from "./dom.js";
import {cellText, expertColour, HeatMap, shownToken} from "./heatmap.js";
import {askJson} from "./server.js";
import {showTiles} from "./tiles.js";

const MOST_TOKENS = 2000;  // on the text

export async function showRouting(box, request, pictures) {
  box.replaceChildren(element("p", {role: "status"}, "Loading ..."));
  let data;
  try {
    data = await askJson(`v1/requests/${encodeURIComponent(request)}/routing`);
  } catch (error) {
    const gone = error.status === 404 ? "The server does not have this any more: it keeps it for the latest requests alone." : error.message;
    box.replaceChildren(element("p", {className: "note"}, gone));
    return;
  }
  if (data.layers.length === 0) return box.replaceChildren(element("p", {className: "note"}, "This model has no experts."));
  new RoutingView(box, data, pictures).build();
}

class RoutingView {
  constructor(box, data, pictures) {
    Object.assign(this, {box, data, pictures, layer: data.layers.length - 1, whole: false});
  }

  build() {
    const {data} = this;
    this.said = element("p", {className: "said", role: "status", "aria-live": "polite"}, "Point at a token, or go with the arrow keys.");
    this.map = element("div", {className: "heatmap"});
    this.text = element("div", {className: "tokens"});
    this.load = element("div", {className: "load"});
    this.tiles = element("div");
    const layer = element("select", {onchange: () => { this.layer = Number(layer.value); this.colour(); }},
      ...data.layers.map((index, i) => element("option", {value: i, selected: i === this.layer}, String(index))));
    const whole = element("input", {type: "checkbox", onchange: () => { this.whole = whole.checked; this.fill(); }});
    const summary = `${counted(data.prompt_tokens)} tokens read (${counted(data.cached_tokens)} from the cache), ${counted(data.completion_tokens)} written; ` +
      `${data.experts_per_token} of ${data.num_experts} experts a token in ${data.layers.length} layers` + (data.truncated ? "; the record was cut at its limit" : "");
    this.box.replaceChildren(
      element("p", {className: "figures"}, summary),
      element("div", {className: "row"}, element("label", {className: "check"}, whole, "Prompt too"), element("label", {}, "Layer of the colours below ", layer)),
      this.map, this.said, this.text, this.load, this.tiles);
    this.fill();
  }

  fill() {
    const {data} = this;
    this.from = this.whole ? 0 : data.prompt_tokens;
    this.to = data.tokens.length;
    this.heat?.resize.disconnect();
    const map = element("div", {className: "heatmap"});
    this.map.replaceWith(map);
    this.map = map;
    if (this.to > this.from) this.heat = new HeatMap(map, data, this.from, this.to, (text, at) => this.point(text, at));
    this.colour();
  }

  colour() {
    const {data, layer} = this;
    const counts = new Array(data.num_experts).fill(0);
    const spans = [];
    for (let at = this.from; at < this.to; ++at) {
      const experts = data.experts[at]?.[layer];
      for (const expert of experts ?? []) ++counts[expert];
      if (spans.length >= MOST_TOKENS) continue;
      const span = element("span", {"data-at": at}, data.tokens[at].includes("\n") ? shownToken(data.tokens[at]) + "\n" : data.tokens[at]);
      if (experts) span.style.backgroundColor = expertColour(experts[0], data.num_experts, 0.15 + 0.4 * data.scores[at][layer][0]);
      spans.push(span);
    }
    this.text.replaceChildren(...spans);
    this.text.onpointerover = (event) => {
      const at = event.target.dataset.at;
      if (at !== undefined) this.point(cellText(data, Number(at), layer * data.experts_per_token), Number(at));
    };
    this.showLoad(counts);
    showTiles(this.tiles, data, this.pictures, layer);
  }

  /** How the tokens are shared out among the experts of the layer. */
  showLoad(counts) {
    const all = counts.reduce((sum, count) => sum + count, 0);
    const used = counts.map((count, expert) => ({count, expert})).filter(({count}) => count > 0).sort((a, b) => b.count - a.count).slice(0, 16);
    this.load.replaceChildren(...used.map(({count, expert}) => {
      const share = element("span", {className: "share"}, `${expert}: ${Math.round((100 * count) / all)} %`);
      share.style.backgroundColor = expertColour(expert, this.data.num_experts, 0.5);
      share.title = `Expert ${expert}: ${counted(count)} of ${counted(all)} choices`;
      return share;
    }));
  }

  point(text, at) {
    this.said.textContent = text;
    this.text.querySelector(".pointed")?.classList.remove("pointed");
    this.text.querySelector(`[data-at="${at}"]`)?.classList.add("pointed");
  }
}
