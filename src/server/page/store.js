// Conversations in the browser's database, settings in its storage; nothing leaves the browser but requests.

import {adoptNodes} from "./tree.js";

const STORE = "conversations";
const otherPages = new BroadcastChannel("puna");
let opened = null;

function open() {
  opened ??= new Promise((resolve, reject) => {
    const request = indexedDB.open("puna", 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, {keyPath: "id"});
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  return opened;
}

async function run(mode, work) {
  const database = await open();
  return new Promise((resolve, reject) => {
    const transaction = database.transaction(STORE, mode);
    const request = work(transaction.objectStore(STORE));
    transaction.oncomplete = () => resolve(request.result);
    transaction.onerror = transaction.onabort = () => reject(transaction.error);
  });
}

export const allConversations = () => run("readonly", (store) => store.getAll());
export const oneConversation = (id) => run("readonly", (store) => store.get(id));

/** With the messages that another page of this browser has saved meanwhile: `conversation` gets them too. */
export async function saveConversation(conversation) {
  await run("readwrite", (store) => {
    const stored = store.get(conversation.id);
    stored.onsuccess = () => {
      if (stored.result) adoptNodes(conversation, stored.result);
      store.put(conversation);
    };
    return stored;
  });
  otherPages.postMessage({saved: conversation.id});
}

export async function deleteConversation(id) {
  await run("readwrite", (store) => store.delete(id));
  otherPages.postMessage({deleted: id});
}

/** `told` gets {saved: id} or {deleted: id} of what other pages of this browser do. */
export function watchOtherPages(told) {
  otherPages.onmessage = (event) => told(event.data);
}

/** A setting of this browser, as JSON; `otherwise` where there is none. */
export function setting(name, otherwise) {
  try {
    return JSON.parse(localStorage.getItem("puna." + name)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

export function setSetting(name, value) {
  try {
    localStorage.setItem("puna." + name, JSON.stringify(value));
  } catch {
    // Where storage is blocked, a setting lasts as long as the page.
  }
}
