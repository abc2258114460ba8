// Every route of the server with a request that can be sent from here.

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { get, Problem, raw } from "../api";
import { Choice, Failure, Field, Text } from "../parts/basics";
import { useAction } from "../hooks";

interface Operation {
  method: string;
  path: string;
  summary: string;
  description: string;
  example: string | null;
}

interface Document {
  paths: Record<string, Record<string, { summary?: string; description?: string; requestBody?: { content?: Record<string, { example?: unknown }> } }>>;
}

function operations(document: Document): Operation[] {
  const all = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => {
      const content = operation.requestBody?.content?.["application/json"];
      const example = operation.requestBody === undefined ? null : JSON.stringify(content?.example ?? {}, null, 2);
      return { method: method.toUpperCase(), path, summary: operation.summary ?? "", description: operation.description ?? "", example };
    }),
  );
  // karat's own routes come first.
  const own = (operation: Operation) => (operation.path.startsWith("/v1/") ? 0 : 1);
  return all.sort((a, b) => own(a) - own(b) || a.path.localeCompare(b.path));
}

export function Api(): JSX.Element {
  const [known, setKnown] = useState<Operation[]>([]);
  const [problem, setProblem] = useState<Problem | null>(null);
  const [chosen, setChosen] = useState("POST /v1/score");
  useEffect(() => {
    const own = new AbortController();
    get<Document>("/openapi.json", own.signal).then(
      (document) => setKnown(operations(document)),
      (error: unknown) => error instanceof Problem && setProblem(error),
    );
    return () => own.abort();
  }, []);
  const operation = known.find(({ method, path }) => `${method} ${path}` === chosen);
  return (
    <>
      <h1>API</h1>
      <p>
        Requests that this page sends as they are written here. <a href="/docs">The reference</a> has every field,{" "}
        <a href="/openapi.json">openapi.json</a> the same for programs.
      </p>
      <Failure problem={problem} />
      <Choice label="Route" value={chosen} options={known.map(({ method, path }) => [`${method} ${path}`, `${method} ${path}`])} onChange={setChosen} />
      {operation !== undefined && <Request key={chosen} operation={operation} />}
    </>
  );
}

function Request({ operation }: { operation: Operation }): JSX.Element {
  const [path, setPath] = useState(operation.path);
  const [body, setBody] = useState(operation.example);
  const [reply, setReply] = useState<{ status: number; body: string } | null>(null);
  const ask = useAction(async () => setReply(await raw(operation.method, path, body)));
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        ask.run();
      }}
    >
      <p>
        <strong>{operation.summary}.</strong> {operation.description}
      </p>
      {operation.path.includes("{") && <Field label="Path">{(id) => <input id={id} class="code" value={path} onInput={(event) => setPath(event.currentTarget.value)} />}</Field>}
      {body !== null && <Text label="Body" code rows={10} value={body} onInput={setBody} />}
      <p class="buttons">
        <button class="main" type="submit">
          Send
        </button>
        <span role="status">{ask.busy ? "Waiting …" : ""}</span>
      </p>
      <Failure problem={ask.problem} />
      {reply !== null && (
        <section aria-label="Reply" class="result">
          <p role="status">Status {reply.status}</p>
          <pre tabIndex={0}>{pretty(reply.body)}</pre>
        </section>
      )}
    </form>
  );
}

function pretty(body: string): string {
  try {
    return JSON.stringify(JSON.parse(body), null, 2);
  } catch {
    return body;
  }
}
