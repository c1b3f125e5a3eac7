// The messages of a conversation on the screen, and what can be done with each.
import {copyFrom, counted, element, find} from "./dom.js";
import {MarkdownView} from "./markdown.js";
import {showRouting} from "./routing.js";
import {branchOf, pathTo, shownPath} from "./tree.js";

const log = find("messages");
const views = new Map();  // id of a shown answer -> its MarkdownView

/** `actions`: edit(node, text), again(node), go(node), of the one that has the conversations. */
export function showMessages(conversation, actions, isRunning) {
  const follow = isAtEnd();
  views.clear();
  log.replaceChildren();
  for (const node of shownPath(conversation)) log.append(messageOf(conversation, node, actions, isRunning));
  if (log.childElementCount === 0) log.append(element("p", {className: "empty"}, "Ask something. What you write stays in this browser and on this server."));
  if (follow) toEnd();
}

const isAtEnd = () => log.scrollHeight - log.scrollTop - log.clientHeight < 80;
export const toEnd = () => { log.scrollTop = log.scrollHeight; };

/** What has been added to the answer's text or said about it. */
export function updateAnswer(node) {
  const view = views.get(node.id);
  if (!view) return;
  const follow = isAtEnd();
  view.update(node.text);
  view.root.nextElementSibling.textContent = figuresOf(node);
  if (follow) toEnd();
}

function figuresOf(node) {
  const parts = [];
  if (node.prompt_tokens) parts.push(`${counted(node.prompt_tokens)} tokens read` + (node.cached_tokens ? `, ${counted(node.cached_tokens)} of them from the cache` : ""));
  if (node.tokens) parts.push(`${counted(node.tokens)} written`);
  if (node.speed) parts.push(`${node.speed < 10 ? node.speed.toFixed(1) : counted(Math.round(node.speed))} tokens/s`);
  return parts.join(" \u00b7 ");
}

function button(text, label, onclick, more = {}) {
  return element("button", {type: "button", "aria-label": label, title: label, onclick, ...more}, text);
}

function branchesOf(conversation, node, actions) {
  const branch = branchOf(conversation, node);
  if (branch.count < 2) return null;
  return element("span", {className: "branches", role: "group", "aria-label": "Branches"},
    button("\u2039", "Previous branch", () => actions.go(branch.previous), {disabled: !branch.previous}),
    element("span", {}, `${branch.index + 1}/${branch.count}`),
    button("\u203a", "Next branch", () => actions.go(branch.next), {disabled: !branch.next}));
}

function messageOf(conversation, node, actions, isRunning) {
  const mine = node.role === "user";
  const article = element("article", {className: node.role, "data-id": node.id, "aria-label": mine ? "You" : "Answer"});
  if (node.images.length > 0) {
    article.append(element("div", {className: "pictures"},
      ...node.images.map((image) => element("img", {src: image.url, alt: image.name}))));
  }
  const tools = element("div", {className: "tools", role: "toolbar", "aria-label": mine ? "Your message" : "This answer"});
  if (mine) {
    const text = element("div", {className: "text"}, node.text);
    article.append(text, tools);
    tools.append(button("Edit", "Edit and send again", () => editIn(article, text, node, actions), {disabled: isRunning}));
  } else {
    appendAnswer(article, node, actions);
    article.append(tools);
    tools.append(button("Again", "Answer again", () => actions.again(node), {disabled: isRunning}));
    if (node.request) {
      const show = button("Experts", "Which experts the tokens went to", () => toggleRouting(article, show, conversation, node),
                          {disabled: node.running, "aria-expanded": "false", className: "experts"});
      tools.append(show);
    }
  }
  const copy = button("Copy", "Copy the text", () => copyFrom(copy, node.text));
  tools.prepend(copy);
  const branches = branchesOf(conversation, node, actions);
  if (branches) tools.prepend(branches);
  return article;
}

function appendAnswer(article, node, actions) {
  const root = element("div", {className: "markdown"});
  const view = new MarkdownView(root);
  views.set(node.id, view);
  article.append(root, element("div", {className: "figures"}, figuresOf(node)));
  view.update(node.text);
  if (node.running) article.setAttribute("aria-busy", "true");
  if (node.note) article.append(element("p", {className: "note"}, node.note));
  if (node.error) {
    article.append(element("p", {className: "error", role: "alert"}, node.error + " ",
      button("Try again", "Try again", () => actions.again(node), {className: "retry"})));
  }
}

function editIn(article, text, node, actions) {
  const field = element("textarea", {value: node.text, rows: Math.min(12, node.text.split("\n").length + 1), "aria-label": "Your message"});
  const leave = () => { form.replaceWith(text); article.querySelector(".tools").hidden = false; };
  const form = element("form", {className: "edit"}, field,
    element("div", {className: "row"}, element("button", {className: "main"}, "Send"), button("Cancel", "Cancel", leave)));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    actions.edit(node, field.value);
  });
  field.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { leave(); event.stopPropagation(); }
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); form.requestSubmit(); }
  });
  text.replaceWith(form);
  article.querySelector(".tools").hidden = true;
  field.focus();
}

async function toggleRouting(article, show, conversation, node) {
  const there = article.querySelector(".routing");
  show.setAttribute("aria-expanded", String(!there));
  if (there) return there.remove();
  const box = element("section", {className: "routing", "aria-label": "Experts"});
  article.append(box);
  const pictures = pathTo(conversation, node).flatMap((one) => one.images);
  await showRouting(box, node.request, pictures);
}
