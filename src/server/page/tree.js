// A conversation is a tree: another wording of a message or another answer is a branch beside the first.

export function newId() {
  return [...crypto.getRandomValues(new Uint8Array(9))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function newConversation(settings) {
  const now = Date.now();
  return {id: newId(), title: "", created: now, updated: now, nodes: {}, roots: [], chosen: {}, settings};
}

const siblingsOf = (conversation, parent) => (parent ? conversation.nodes[parent].children : conversation.roots);

/** Adds a message below `parent` (null: at the top) and goes to it. */
export function addNode(conversation, parent, fields) {
  const node = {id: newId(), parent: parent ?? null, children: [], text: "", images: [], ...fields};
  conversation.nodes[node.id] = node;
  siblingsOf(conversation, parent).push(node.id);
  choose(conversation, node);
  conversation.updated = Date.now();
  return node;
}

/** Takes the messages that `other`, the same conversation in another page, has beside ours, and what it has more of one. */
export function adoptNodes(conversation, other) {
  const waiting = other.roots.map((id) => [id, null]);
  while (waiting.length > 0) {
    const [id, parent] = waiting.shift();
    const node = other.nodes[id], own = conversation.nodes[id];
    if (!own) {
      conversation.nodes[id] = {...node, children: []};
      siblingsOf(conversation, parent).push(id);
    } else if (node.text.length > own.text.length || (own.running && !node.running && node.text.length === own.text.length)) {
      delete own.running;
      delete own.note;
      Object.assign(own, node, {children: own.children});
    }
    waiting.push(...node.children.map((child) => [child, id]));
  }
}

export function choose(conversation, node) {
  conversation.chosen[node.parent ?? ""] = node.id;
}

/** The branch that is shown, from the first message on. */
export function shownPath(conversation) {
  const path = [];
  let parent = null;
  for (;;) {
    const siblings = siblingsOf(conversation, parent);
    if (siblings.length === 0) return path;
    const chosen = conversation.chosen[parent ?? ""];
    parent = siblings.includes(chosen) ? chosen : siblings[siblings.length - 1];
    path.push(conversation.nodes[parent]);
  }
}

/** From the first message to this one. */
export function pathTo(conversation, node) {
  const path = [];
  for (let at = node; at; at = at.parent ? conversation.nodes[at.parent] : null) path.unshift(at);
  return path;
}

/** {index, count, previous, next} among the branches beside `node`. */
export function branchOf(conversation, node) {
  const siblings = siblingsOf(conversation, node.parent);
  const index = siblings.indexOf(node.id);
  const at = (i) => conversation.nodes[siblings[i]];
  return {index, count: siblings.length, previous: at(index - 1), next: at(index + 1)};
}

/** What the server is sent: the messages before and up to `node`. */
export function requestMessages(conversation, node) {
  const messages = [];
  const system = conversation.settings.system.trim();
  if (system) messages.push({role: "system", content: system});
  for (const one of pathTo(conversation, node)) {
    const parts = one.images.map((image) => ({type: "image_url", image_url: {url: image.url}}));
    if (parts.length > 0 && one.text) parts.push({type: "text", text: one.text});
    messages.push({role: one.role, content: parts.length > 0 ? parts : one.text});
  }
  return messages;
}

export function titleOf(conversation) {
  if (conversation.title) return conversation.title;
  const first = conversation.roots.length > 0 ? conversation.nodes[conversation.roots[0]] : null;
  return first?.text.slice(0, 60) || (first ? "A picture" : "New conversation");
}

/** A conversation read from a file, with nothing but what belongs to one; null when it is none. */
export function checkedConversation(given) {
  const isText = (value) => typeof value === "string";
  const isIds = (value) => Array.isArray(value) && value.every((id) => isText(id) && Object.hasOwn(given.nodes, id));
  if (!given || typeof given !== "object" || !given.nodes || typeof given.nodes !== "object" || !isIds(given.roots)) return null;
  const conversation = newConversation(checkedSettings(given.settings));
  conversation.title = isText(given.title) ? given.title.slice(0, 200) : "";
  for (const time of ["created", "updated"]) if (Number.isFinite(given[time])) conversation[time] = given[time];
  conversation.roots = [...given.roots];
  for (const [id, node] of Object.entries(given.nodes)) {
    if (!node || !["user", "assistant"].includes(node.role) || !isText(node.text) || !isIds(node.children)) return null;
    const images = (Array.isArray(node.images) ? node.images : []).filter((image) => isText(image?.url) && /^data:image\/(png|jpeg|webp);base64,/.test(image.url));
    conversation.nodes[id] = {
      id, parent: isText(node.parent) ? node.parent : null, children: [...node.children], role: node.role, text: node.text,
      images: images.map((image) => ({url: image.url, name: isText(image.name) ? image.name : "picture"})),
      request: isText(node.request) ? node.request : undefined, note: isText(node.note) ? node.note : undefined,
    };
  }
  return hasOneParentEach(conversation) ? conversation : null;
}

function hasOneParentEach(conversation) {
  const seen = new Set();
  const waiting = conversation.roots.map((id) => [id, null]);
  while (waiting.length > 0) {
    const [id, parent] = waiting.pop();
    const node = conversation.nodes[id];
    if (seen.has(id) || node.parent !== parent) return false;
    seen.add(id);
    waiting.push(...node.children.map((child) => [child, id]));
  }
  return seen.size === Object.keys(conversation.nodes).length;
}

export const NUMBERS = {
  temperature: {label: "Temperature", least: 0, most: 5, step: 0.05},
  top_p: {label: "Top p", least: 0, most: 1, step: 0.01},
  top_k: {label: "Top k", least: 0, most: 100000, step: 1},
  min_p: {label: "Min p", least: 0, most: 1, step: 0.01},
  typical_p: {label: "Typical p", least: 0.01, most: 1, step: 0.01},
  repetition_penalty: {label: "Repetition penalty", least: 0.01, most: 10, step: 0.01},
  frequency_penalty: {label: "Frequency penalty", least: -2, most: 2, step: 0.1},
  presence_penalty: {label: "Presence penalty", least: -2, most: 2, step: 0.1},
  max_tokens: {label: "Tokens at most", least: 1, most: 1e9, step: 1},
  seed: {label: "Seed", least: 0, most: Number.MAX_SAFE_INTEGER, step: 1},
};

/** {system, numbers, stops, extra, routing} with what is sound in `given`, and else as without settings. */
export function checkedSettings(given) {
  const text = (value) => (typeof value === "string" ? value : "");
  const numbers = {};
  for (const name of Object.keys(NUMBERS)) {
    if (Number.isFinite(given?.numbers?.[name])) numbers[name] = given.numbers[name];
  }
  return {system: text(given?.system), numbers, stops: text(given?.stops), extra: text(given?.extra), routing: given?.routing !== false};
}
