// The page: conversations, what is sent, what comes, and the keyboard.
import {clearDraft, draft, startComposer} from "./composer.js";
import {element, find, say} from "./dom.js";
import {setBusy, startFigures} from "./figures.js";
import {showMessages, toEnd, updateAnswer} from "./messages.js";
import {askForKey, lastSettings, requestFields, showPart, showSettings, startPanel} from "./panel.js";
import {streamChat} from "./server.js";
import {allConversations, deleteConversation, oneConversation, saveConversation, setSetting, setting, watchOtherPages} from "./store.js";
import {addNode, adoptNodes, checkedConversation, choose, newConversation, requestMessages, shownPath, titleOf} from "./tree.js";

const SAVE_EVERY = 1000;  // milliseconds, of an answer that grows

let conversations = [], current = null;
const running = new Map();  // id of a conversation -> AbortController of its answer

const complain = (text) => {
  const notice = element("p", {className: "error notice", role: "alert"}, text);
  find("composer").before(notice);
  setTimeout(() => notice.remove(), 8000);
};

const removed = new WeakSet();

async function save(conversation) {
  if (removed.has(conversation)) return;  // its answer may still have been on its way
  try {
    await saveConversation(conversation);
  } catch (error) {
    complain(`The browser could not keep this conversation: ${error.message}`);
  }
}

// ---- what is shown

const actions = {
  edit(node, text) {
    if (running.has(current.id) || !text.trim()) return;
    answer(current, addNode(current, node.parent, {role: "user", text: text.trim(), images: node.images}));
  },
  again(node) {
    if (!running.has(current.id)) answer(current, current.nodes[node.parent]);
  },
  go(node) {
    choose(current, node);
    save(current);
    show();
  },
};

function show() {
  showMessages(current, actions, running.has(current.id));
  const busy = running.has(current.id);
  find("send").hidden = busy;
  find("stop").hidden = !busy;
  setBusy(running.size > 0);
}

function showList() {
  conversations.sort((a, b) => b.updated - a.updated);
  find("conversations").replaceChildren(...conversations.filter((one) => one.roots.length > 0).map((one) => {
    const name = element("button", {type: "button", className: "name", onclick: () => open(one)}, titleOf(one));
    if (one === current) name.setAttribute("aria-current", "true");
    return element("li", {}, name,
      element("button", {type: "button", "aria-label": `Rename ${titleOf(one)}`, title: "Rename", onclick: () => rename(one)}, "\u270e"),
      element("button", {type: "button", "aria-label": `Delete ${titleOf(one)}`, title: "Delete", onclick: () => remove(one)}, "\u00d7"));
  }));
}

function open(conversation) {
  current = conversation;
  setSetting("open", conversation.id);
  showSettings(conversation.settings);
  show();
  showList();
  toEnd();
}

function begin() {
  const conversation = newConversation(lastSettings());
  conversations.push(conversation);
  open(conversation);
  find("input").focus();
}

async function rename(conversation) {
  const title = window.prompt("Name of the conversation", titleOf(conversation));
  if (title === null) return;
  conversation.title = title.trim().slice(0, 200);
  await save(conversation);
  showList();
}

async function remove(conversation) {
  if (!window.confirm(`Delete "${titleOf(conversation)}"?`)) return;
  forget(conversation);
  await deleteConversation(conversation.id);
}

function forget(conversation) {
  removed.add(conversation);
  running.get(conversation.id)?.abort();
  conversations = conversations.filter((one) => one !== conversation);
  if (conversation !== current) showList();
  else if (conversations.length > 0) open(conversations[0]);
  else begin();
}

/** Another page of this browser has saved or deleted a conversation. */
async function follow({saved, deleted}) {
  if (deleted) {
    const gone = conversations.find((one) => one.id === deleted);
    if (gone) forget(gone);
    return;
  }
  const stored = await oneConversation(saved);
  if (!stored) return;
  const mine = conversations.find((one) => one.id === saved);
  if (mine && running.has(saved)) {
    mine.title = stored.title;
    adoptNodes(mine, stored);  // our answer goes on
  } else {
    conversations = [...conversations.filter((one) => one !== mine), stored];
    if (mine === current) {
      current = stored;
      showSettings(stored.settings);
    }
  }
  const isEdited = find("messages").querySelector("textarea");
  if (current.id === saved && !isEdited) show();
  showList();
}

// ---- what is sent, and what comes

function send() {
  const {text, images} = draft();
  if (running.has(current.id) || (!text && images.length === 0)) return;
  const path = shownPath(current);
  clearDraft();
  answer(current, addNode(current, path.length > 0 ? path[path.length - 1].id : null, {role: "user", text, images}));
  toEnd();
}

/** Asks for an answer to `question`, as a new branch. */
async function answer(conversation, question) {
  const node = addNode(conversation, question.id, {role: "assistant", running: true});
  const control = new AbortController();
  running.set(conversation.id, control);
  if (conversation === current) show();
  showList();
  await save(conversation);
  try {
    await take(conversation, node, {...requestFields(conversation.settings), messages: requestMessages(conversation, question)}, control.signal);
    say("The answer is complete");
  } catch (error) {
    if (error.name === "AbortError") {
      node.note = "Stopped.";
      say("Stopped");
    } else {
      node.error = error.message;
      if (error.status === 401) askForKey();
    }
  }
  delete node.running;
  conversation.updated = Date.now();
  await save(conversation);
  running.delete(conversation.id);
  if (conversation === current) show();
  else setBusy(running.size > 0);
  showList();
}

async function take(conversation, node, body, signal) {
  let first = 0, pieces = 0, saved = performance.now(), drawn = 0;
  for await (const chunk of streamChat(body, signal)) {
    node.request = chunk.id;
    if (chunk.usage) {
      node.prompt_tokens = chunk.usage.prompt_tokens;
      node.cached_tokens = chunk.usage.prompt_tokens_details?.cached_tokens ?? 0;
      node.tokens = chunk.usage.completion_tokens;
      if (first && node.tokens > 1) node.speed = ((node.tokens - 1) * 1000) / Math.max(performance.now() - first, 1);
    }
    const choice = chunk.choices[0];
    if (choice?.finish_reason === "length") node.note = "Cut: a limit, or a call that was not finished.";
    for (const call of choice?.delta?.tool_calls ?? []) node.text += (call.function?.name ?? "") + (call.function?.arguments ?? "");
    const text = choice?.delta?.content;
    if (!text) continue;
    first ||= performance.now();
    node.text += text;
    node.speed = (++pieces * 1000) / Math.max(performance.now() - first, 1);
    drawn ||= requestAnimationFrame(() => {
      drawn = 0;
      if (conversation === current) updateAnswer(node);
    });
    if (performance.now() - saved < SAVE_EVERY) continue;
    saved = performance.now();
    save(conversation);
  }
}

// ---- files

function exportAll() {
  const file = new Blob([JSON.stringify({puna: 1, conversations: conversations.filter((one) => one.roots.length > 0)})], {type: "application/json"});
  const link = element("a", {href: URL.createObjectURL(file), download: "puna-conversations.json"});
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

async function importFrom(file) {
  let given = null;
  try {
    given = JSON.parse(await file.text()).conversations;
  } catch {
    // Said below.
  }
  if (!Array.isArray(given)) return complain(`${file.name} holds no conversations of this page.`);
  const sound = given.map(checkedConversation).filter((one) => one !== null && one.roots.length > 0);
  for (const conversation of sound) await save(conversation);
  conversations.push(...sound);
  if (sound.length > 0) open(sound[sound.length - 1]);
  if (sound.length < given.length) complain(`${given.length - sound.length} of ${given.length} conversations are damaged and were left out.`);
}

// ---- the keyboard

const last = (role) => shownPath(current).filter((node) => node.role === role).pop();
const buttonOf = (node, name) => node && find("messages").querySelector(`[data-id="${node.id}"] .tools [aria-label^="${name}"]`);

const KEYS = {
  n: begin,
  ArrowUp: () => buttonOf(last("user"), "Edit")?.click(),
  r: () => buttonOf(last("assistant"), "Answer again")?.click(),
  e: () => buttonOf(last("assistant"), "Which experts")?.click(),
};

function onKey(event) {
  const writes = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
  if (event.key === "Escape" && running.has(current.id)) return running.get(current.id).abort();
  if (event.key === "/" && !writes && !event.ctrlKey && !event.altKey) {
    event.preventDefault();
    return find("input").focus();
  }
  const key = event.altKey && !event.ctrlKey && KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!key) return;
  event.preventDefault();
  key();
}

async function start() {
  startPanel(() => { if (current.roots.length > 0) save(current); });
  const wide = window.innerWidth > 900;
  showPart("show-list", "list", wide && setting("with-list", true));
  showPart("show-panel", "panel", wide && setting("with-panel", false));
  startComposer(send, complain);
  try {
    conversations = await allConversations();
  } catch (error) {
    complain(`This browser keeps no conversations: ${error.message}`);
  }
  for (const conversation of conversations) {
    for (const node of Object.values(conversation.nodes)) {
      if (!node.running) continue;
      delete node.running;  // the page was left meanwhile
      node.note = "Cut when the page was left.";
    }
  }
  const before = conversations.find((one) => one.id === setting("open", ""));
  if (before) open(before);
  else begin();
  find("new").addEventListener("click", begin);
  find("stop").addEventListener("click", () => running.get(current.id)?.abort());
  find("export").addEventListener("click", exportAll);
  find("import").addEventListener("click", () => find("import-file").click());
  find("import-file").addEventListener("change", async () => {
    const [file] = find("import-file").files;
    if (file) await importFrom(file);
    find("import-file").value = "";
  });
  document.addEventListener("keydown", onKey);
  watchOtherPages(follow);
  startFigures(askForKey);
  document.body.dataset.ready = "";
}

start();
