// The field for a new message: text, and pictures by file, drop and paste.
import {element, find, say} from "./dom.js";

const MOST_PICTURES = 48;
const MOST_BYTES = 24 * 1024 * 1024;  // of a picture's file, which a request carries a third longer
const KNOWN = ["image/png", "image/jpeg", "image/webp"];

const input = find("input");
let pictures = [];

export const draft = () => ({text: input.value.trim(), images: pictures});

export function clearDraft() {
  input.value = "";
  pictures = [];
  showPictures();
  grow();
}

function grow() {
  input.style.height = "auto";
  input.style.height = Math.min(input.scrollHeight + 2, window.innerHeight * 0.4) + "px";
}

function showPictures() {
  find("pictures").replaceChildren(...pictures.map((picture) => element("li", {},
    element("img", {src: picture.url, alt: picture.name}),
    element("button", {type: "button", "aria-label": `Remove ${picture.name}`, onclick: () => {
      pictures = pictures.filter((one) => one !== picture);
      showPictures();
      input.focus();
    }}, "\u00d7"))));
}

const dataUrl = (blob) => new Promise((resolve, reject) => {
  const reader = new FileReader();
  reader.onload = () => resolve(reader.result);
  reader.onerror = () => reject(reader.error);
  reader.readAsDataURL(blob);
});

/** PNG of a picture in a format that the server does not read and this browser does. */
async function redrawn(file) {
  const bitmap = await createImageBitmap(file);
  const canvas = element("canvas", {width: bitmap.width, height: bitmap.height});
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

export async function addPictures(files, complain) {
  for (const file of files) {
    if (pictures.length >= MOST_PICTURES) return complain(`A message takes ${MOST_PICTURES} pictures at most.`);
    try {
      const blob = KNOWN.includes(file.type) ? file : await redrawn(file);
      if (blob.size > MOST_BYTES) complain(`${file.name} is larger than ${MOST_BYTES >> 20} MB.`);
      else pictures = [...pictures, {name: file.name || "picture", url: await dataUrl(blob)}];
    } catch {
      complain(`${file.name || "This"} is no picture that this browser can read.`);
    }
    showPictures();
    say(`${pictures.length} pictures`);
  }
}

/** `onsend` and `complain` are called; nothing else of the page is touched. */
export function startComposer(onsend, complain) {
  input.addEventListener("input", grow);
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    onsend();
  });
  find("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    onsend();
  });
  find("attach").addEventListener("click", () => find("files").click());
  find("files").addEventListener("change", () => {
    addPictures([...find("files").files], complain);
    find("files").value = "";
  });
  input.addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files];
    if (files.length === 0) return;
    event.preventDefault();
    addPictures(files, complain);
  });
  const over = (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    document.body.classList.toggle("dropping", event.type === "dragover");
    if (event.type === "drop") addPictures([...event.dataTransfer.files], complain);
  };
  for (const name of ["dragover", "dragleave", "drop"]) document.addEventListener(name, over);
}
