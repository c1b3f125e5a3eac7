// The settings of a conversation, and what holds for the whole browser: key and colours.
import {element, find, say} from "./dom.js";
import {checkedSettings, NUMBERS} from "./tree.js";
import {setSetting, setting} from "./store.js";

const fields = new Map();
let settings = checkedSettings(null);
let changed = () => {};

export const lastSettings = () => checkedSettings(setting("settings", null));

/** The JSON of further fields; null when it is none. */
export function extraFields(text) {
  if (!text.trim()) return {};
  try {
    const json = JSON.parse(text);
    return json && typeof json === "object" && !Array.isArray(json) ? json : null;
  } catch {
    return null;
  }
}

/** The fields of a request that the settings ask for. */
export function requestFields(of) {
  const stops = of.stops.split("\n").filter((line) => line !== "");
  return {...of.numbers, ...(stops.length > 0 ? {stop: stops} : {}), ...(of.routing ? {return_routing: "if_room"} : {}), ...extraFields(of.extra)};
}

export function showSettings(of) {
  settings = of;
  find("system").value = of.system;
  find("stops").value = of.stops;
  find("extra").value = of.extra;
  find("routing").checked = of.routing;
  for (const [name, field] of fields) field.value = of.numbers[name] ?? "";
  showExtraError();
}

function showExtraError() {
  const wrong = extraFields(find("extra").value) === null;
  find("extra-error").textContent = wrong ? "This is not a JSON object; it is left out." : "";
  find("extra").setAttribute("aria-invalid", String(wrong));
}

function take() {
  settings.system = find("system").value;
  settings.stops = find("stops").value;
  settings.extra = find("extra").value;
  settings.routing = find("routing").checked;
  settings.numbers = {};
  for (const [name, field] of fields) {
    if (field.value !== "" && field.validity.valid) settings.numbers[name] = Number(field.value);
  }
  showExtraError();
  setSetting("settings", settings);
  changed();
}

const THEMES = ["system", "light", "dark"];
const SIGNS = {system: "\u25d0", light: "\u2600", dark: "\u263e"};

function showTheme(theme) {
  document.documentElement.dataset.theme = theme;
  find("theme").textContent = SIGNS[theme];
  find("theme").setAttribute("aria-label", theme === "system" ? "Colours: as the system" : `Colours: ${theme}`);
}

/** `onchange`: the settings that were shown are others now. */
export function startPanel(onchange) {
  changed = onchange;
  for (const [name, {label, least, most, step}] of Object.entries(NUMBERS)) {
    const field = element("input", {type: "number", min: least, max: most, step, placeholder: "model's own", inputMode: "decimal"});
    fields.set(name, field);
    find("sampling").append(element("label", {}, label + " ", field));
  }
  find("settings").addEventListener("input", (event) => {
    if (event.target === find("key")) setSetting("key", find("key").value.trim());
    else take();
  });
  find("settings").addEventListener("submit", (event) => event.preventDefault());
  find("key").value = setting("key", "");
  const theme = setting("theme", "system");
  showTheme(THEMES.includes(theme) ? theme : "system");
  find("theme").addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length];
    setSetting("theme", next);
    showTheme(next);
    say(find("theme").getAttribute("aria-label"));
  });
  for (const [button, part] of [["show-list", "list"], ["show-panel", "panel"]]) {
    find(button).addEventListener("click", () => {
      const shown = !document.body.classList.contains("with-" + part);
      showPart(button, part, shown);
      setSetting("with-" + part, shown);
    });
  }
}

export function showPart(button, part, shown) {
  document.body.classList.toggle("with-" + part, shown);
  find(button).setAttribute("aria-expanded", String(shown));
}

export function askForKey() {
  showPart("show-panel", "panel", true);
  find("key").focus();
}
