// What the page asks of the server: JSON by POST under /v1/, and an answer that comes in pieces. Failures have a status
// (0: the server does not answer), a message and a hint.

import { route } from "./route.js";

const TOKEN = "treering-token";

export class Failure extends Error {
  constructor(status, message, hint = "", after = 0) {
    super(message);
    Object.assign(this, { status, hint, after });
  }
}

/** Kept for this tab only, and sent to this server only. */
export const keepToken = (token) => sessionStorage.setItem(TOKEN, token);

async function answered(path, { body, signal, method = "POST", repository = route().repository }) {
  const headers = { "Content-Type": "application/json" };
  const token = sessionStorage.getItem(TOKEN);
  if (token) headers.Authorization = `Bearer ${token}`;
  let response;
  try {
    response = await fetch(`/v1/${path}${repository ? `?repository=${encodeURIComponent(repository)}` : ""}`, {
      method, headers, signal, body: body && JSON.stringify(body), credentials: "omit", redirect: "error",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure(0, "The server does not answer", "it was stopped, or is not reached from here: `treering serve` starts it");
  }
  if (!response.ok) throw await failure(response);
  return response;
}

async function failure(response) {
  const after = Number(response.headers.get("Retry-After")) || 0;
  let told = {};
  try {
    told = (await response.json()).error ?? {};
  } catch {
    // not ours, or torn: the status says enough
  }
  return new Failure(response.status, told.message || `The server answered ${response.status}`, told.hint || "", after);
}

/** What `/v1/<name>` answers. */
export async function ask(name, body = {}, { signal } = {}) {
  const response = await answered(name, { body, signal });
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure(0, "The answer was cut off", "the server stopped while it answered: try it again");
  }
}

/** The names of the repositories; none where the server does not tell. */
export async function repositories() {
  try {
    const told = await (await answered("repositories", { method: "GET", repository: "" })).json();
    return (Array.isArray(told) ? told : told.repositories ?? []).map((one) => one.name ?? one);
  } catch (error) {
    if (error instanceof Failure && [0, 401].includes(error.status)) throw error;
    return [];
  }
}

/** Ask, and be told every piece (`tell`) as it comes; returns the whole answer. */
export async function streamed(name, body, { signal, tell }) {
  const response = await answered(name, { body: { ...body, stream: true }, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let left = "";
  let whole = null;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const events = (left + value.replaceAll("\r\n", "\n")).split("\n\n");
      left = events.pop();
      for (const event of events) {
        const data = event.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart()).join("\n");
        if (!data || data === "[DONE]") continue;
        const piece = JSON.parse(data);
        if (piece.error) throw new Failure(piece.error.status ?? 500, piece.error.message, piece.error.hint);
        if (piece.delta !== undefined) tell(piece.delta);
        if (piece.answer !== undefined) whole = piece.answer;
      }
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof Failure) throw error;
    throw new Failure(0, "The answer was cut off", "the server stopped while it answered: try it again");
  }
  if (!whole) throw new Failure(0, "The answer was cut off", "the server stopped while it answered: try it again");
  return whole;
}
