// Requests to the server.
import {setting} from "./store.js";

/** The server's answer was an error, or it could not be reached (status 0). */
export class ServerError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const UNREACHABLE = "The server cannot be reached";

async function ask(path, options = {}) {
  const headers = {...options.headers};
  const key = setting("key", "");
  if (key) headers.Authorization = "Bearer " + key;
  let answer;
  try {
    answer = await fetch(path, {...options, headers, cache: "no-store"});
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError(0, UNREACHABLE);
  }
  if (answer.ok) return answer;
  let message = `Status ${answer.status}`;
  try {
    message = (await answer.json()).error.message;
  } catch {
    // Not the server's own answer: the status has to do.
  }
  throw new ServerError(answer.status, message);
}

export async function askJson(path) {
  return (await ask(path)).json();
}

/** The events of a streamed chat completion, one by one; throws ServerError when it ends before it is complete. */
export async function* streamChat(body, signal) {
  const answer = await ask("v1/chat/completions", {
    method: "POST",
    headers: {"Content-Type": "application/json"},
    body: JSON.stringify({...body, stream: true, stream_options: {include_usage: true}}),
    signal,
  });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let pending = "";
  for (;;) {
    let piece;
    try {
      piece = await reader.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ServerError(0, UNREACHABLE + " any more; the answer is not complete");
    }
    if (piece.done) throw new ServerError(0, "The server ended the answer before it was complete");
    const events = (pending + piece.value).split("\n\n");
    pending = events.pop();
    for (const event of events) {
      if (!event.startsWith("data: ")) continue;
      const data = event.slice(6);
      if (data === "[DONE]") return;
      const json = JSON.parse(data);
      if (json.error) throw new ServerError(500, json.error.message);
      yield json;
    }
  }
}
