// The public API as the console uses it: JSON in and out, a key where the server wants one, streams of events, and
// problems as errors that say what to change.

/** What went wrong, in the server's words. */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly title: string,
    detail: string,
    /** The sample that is to blame, counted from 0, where one is. */
    readonly index?: number,
  ) {
    super(detail);
  }
}

const KEY = "karat.key";
const listeners = new Set<() => void>();

/** The key is kept for this tab alone, and never leaves it but to the server that the page came from. */
export function key(): string {
  return sessionStorage.getItem(KEY) ?? "";
}

export function setKey(value: string): void {
  if (value === "") {
    sessionStorage.removeItem(KEY);
  } else {
    sessionStorage.setItem(KEY, value);
  }
}

/** Calls back whenever a request is refused for want of a key; returns what ends that. */
export function onKeyWanted(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

async function send(path: string, init: RequestInit): Promise<Response> {
  const headers = new Headers(init.headers);
  if (key() !== "") headers.set("Authorization", `Bearer ${key()}`);
  let response: Response;
  try {
    response = await fetch(path, { ...init, headers, credentials: "omit" });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Problem(0, "No answer", "The server doesn't answer; is it still running?");
  }
  if (response.ok) return response;
  if (response.status === 401) for (const listener of listeners) listener();
  throw await problem(response);
}

async function problem(response: Response): Promise<Problem> {
  const text = await response.text();
  try {
    return told(JSON.parse(text), response.status);
  } catch {
    return new Problem(response.status, `${response.status}`, text.slice(0, 500) || response.statusText);
  }
}

function told(body: { title?: string; detail?: string; index?: number }, status: number): Problem {
  return new Problem(status, body.title ?? `${status}`, body.detail ?? "The server doesn't say why.", body.index);
}

export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  const response = await send(path, { signal: signal ?? null });
  return (await response.json()) as T;
}

export async function text(path: string, signal?: AbortSignal): Promise<string> {
  return (await send(path, { signal: signal ?? null })).text();
}

export async function post<T>(path: string, body: unknown, signal?: AbortSignal): Promise<T> {
  const headers = { "Content-Type": "application/json" };
  const response = await send(path, { method: "POST", headers, body: JSON.stringify(body), signal: signal ?? null });
  return (await response.json()) as T;
}

/** A request as somebody wrote it: the reply as text, whatever its status. */
export async function raw(method: string, path: string, body: string | null): Promise<{ status: number; body: string }> {
  const headers = new Headers();
  if (key() !== "") headers.set("Authorization", `Bearer ${key()}`);
  if (body !== null) headers.set("Content-Type", "application/json");
  const response = await fetch(path, { method, headers, body, credentials: "omit" });
  return { status: response.status, body: await response.text() };
}

/** One server-sent event. */
export interface ServerEvent {
  name: string;
  data: unknown;
}

/** The events of a reply as they come; an event `error` is thrown. */
export async function* events(path: string, body: unknown, signal: AbortSignal): AsyncGenerator<ServerEvent> {
  const headers = { "Content-Type": "application/json" };
  const response = await send(path, { method: "POST", headers, body: JSON.stringify(body), signal });
  if (response.body === null) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    waiting += value;
    const blocks = waiting.split("\n\n");
    waiting = blocks.pop() ?? "";
    for (const block of blocks) {
      const event = parse(block);
      if (event === null) continue;
      if (event.name === "error") throw told(event.data as { detail?: string }, 500);
      yield event;
    }
  }
}

function parse(block: string): ServerEvent | null {
  let name = "message";
  let data = "";
  for (const line of block.split("\n")) {
    if (line.startsWith("event:")) name = line.slice(6).trim();
    if (line.startsWith("data:")) data += line.slice(5).trim();
  }
  return data === "" ? null : { name, data: JSON.parse(data) };
}
