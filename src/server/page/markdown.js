// Markdown to elements: marked reads it, DOMPurify cleans what comes out, highlight.js colours code, KaTeX sets formulas.
import {copyFrom, element} from "./dom.js";

/* global marked, DOMPurify, hljs, katex */

// Debian 12's DOMPurify reads this name, which it declares nowhere, in a check that its loop makes again for each element.
globalThis.shadowNode ??= {__depth: 1};

const MOST_COLOURED = 50000;  // characters of code

const escapes = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"};
const escaped = (text) => text.replace(/[&<>"]/g, (sign) => escapes[sign]);

function formula(name, level, pattern, start, block) {
  return {
    name, level,
    start: (text) => { const at = text.search(start); return at < 0 ? undefined : at; },
    tokenizer(text) {
      const match = pattern.exec(text);
      return match ? {type: name, raw: match[0], tex: match[1]} : undefined;
    },
    renderer: (token) => (block ? `<div class="tex">${escaped(token.tex)}</div>` : `<span class="tex">${escaped(token.tex)}</span>`),
  };
}

marked.use({
  gfm: true, headerIds: false, mangle: false,
  extensions: [
    formula("dollarBlock", "block", /^ {0,3}\$\$([^$]+)\$\$ *(?:\n|$)/, /\$\$/, true),
    formula("bracketBlock", "block", /^ {0,3}\\\[([\s\S]+?)\\\] *(?:\n|$)/, /\\\[/, true),
    formula("dollars", "inline", /^\$\$([^$\n]+)\$\$/, /\$\$/, true),
    formula("dollar", "inline", /^\$(?![\s$])((?:\\.|[^$\\\n])*?[^\s\\$])\$(?!\d)/, /\$/, false),
    formula("parenthesis", "inline", /^\\\((.+?)\\\)/, /\\\(/, false),
  ],
  renderer: {
    html: (html) => escaped(html),  // what a model writes is text
    image: (href, title, text) => `<a href="${escaped(href ?? "")}">${escaped(text || href || "picture")}</a>`,
  },
});

const MARKDOWN = {
  ALLOWED_TAGS: ["p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "pre", "code", "em", "strong",
                 "del", "a", "table", "thead", "tbody", "tr", "th", "td", "div", "span", "input"],
  ALLOWED_ATTR: ["href", "class", "align", "type", "checked", "disabled", "start"],
  ALLOW_DATA_ATTR: false, ALLOW_ARIA_ATTR: false,
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  RETURN_TRUSTED_TYPE: true,
};
const COLOURS = {ALLOWED_TAGS: ["span"], ALLOWED_ATTR: ["class"], RETURN_TRUSTED_TYPE: true};

function setFormulas(root) {
  for (const place of root.querySelectorAll(".tex")) {
    katex.render(place.textContent, place, {
      displayMode: place.tagName === "DIV", throwOnError: false, trust: false, strict: "ignore", maxExpand: 1000, maxSize: 50,
    });
  }
}

function setCode(root) {
  for (const code of root.querySelectorAll("pre > code")) {
    const language = /language-(\S+)/.exec(code.className)?.[1] ?? "";
    const text = code.textContent.replace(/\n$/, "");  // marked ends code with a line end of its own
    code.textContent = text;
    if (hljs.getLanguage(language) && text.length < MOST_COLOURED)
      code.innerHTML = DOMPurify.sanitize(hljs.highlight(language, text, true).value, COLOURS);
    const copy = element("button", {className: "copy", type: "button", "aria-label": "Copy the code"}, "Copy");
    copy.addEventListener("click", () => copyFrom(copy, text));
    const pre = code.parentElement;
    pre.tabIndex = 0;  // to be scrolled by keys
    const box = element("div", {className: "code"}, element("div", {className: "bar"}, element("span", {}, language), copy));
    pre.replaceWith(box);
    box.append(pre);
  }
}

function blockOf(token, links) {
  const tokens = [token];
  tokens.links = links;
  const block = element("div");
  block.innerHTML = DOMPurify.sanitize(marked.parser(tokens), MARKDOWN);
  for (const link of block.querySelectorAll("a")) {
    link.target = "_blank";
    link.rel = "noopener noreferrer";
  }
  for (const box of block.querySelectorAll("input")) box.disabled = true;
  for (const table of block.querySelectorAll("table")) {
    const scroll = element("div", {className: "scroll", tabIndex: 0});
    table.replaceWith(scroll);
    scroll.append(table);
  }
  setFormulas(block);
  setCode(block);
  return block;
}

/** Shows a text that grows: blocks that have not changed stay as they are. */
export class MarkdownView {
  constructor(root) {
    this.root = root;
    this.blocks = [];
  }

  update(text) {
    const all = marked.lexer(text);
    const tokens = all.filter((token) => token.type !== "space" && token.type !== "def");
    tokens.forEach((token, i) => {
      if (this.blocks[i]?.raw === token.raw) return;
      const made = blockOf(token, all.links);
      if (this.blocks[i]) this.blocks[i].block.replaceWith(made);
      else this.root.append(made);
      this.blocks[i] = {raw: token.raw, block: made};
    });
    for (const {block} of this.blocks.splice(tokens.length)) block.remove();
  }
}
