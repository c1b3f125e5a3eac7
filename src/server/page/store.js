// Conversations in the browser's database, settings in its storage; nothing leaves the browser but requests.

const STORE = "conversations";
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
export const saveConversation = (conversation) => run("readwrite", (store) => store.put(conversation));
export const deleteConversation = (id) => run("readwrite", (store) => store.delete(id));

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
