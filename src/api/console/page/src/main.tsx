// The console's frame: which page is shown, and the key where the server wants one.

import { render, type JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { key, onKeyWanted, setKey } from "./api";
import { Field } from "./parts/basics";
import { Api } from "./pages/api";
import { Compare } from "./pages/compare";
import { Load } from "./pages/load";
import { Models } from "./pages/models";
import { Runs, watchesRuns } from "./pages/runs";
import { Try } from "./pages/try";
import "./style.css";

const PAGES: Record<string, { title: string; page: () => JSX.Element }> = {
  models: { title: "Models", page: Models },
  try: { title: "Try", page: Try },
  compare: { title: "Compare", page: Compare },
  load: { title: "Load", page: Load },
  runs: { title: "Runs", page: Runs },
  api: { title: "API", page: Api },
};

function place(): string {
  const named = location.hash.replace(/^#\/?/, "");
  return named in PAGES ? named : "models";
}

function Console(): JSX.Element {
  const [current, setCurrent] = useState(place());
  const [hasRuns, setHasRuns] = useState(false);
  const [wanted, setWanted] = useState(false);
  const [tries, setTries] = useState(0);
  const main = useRef<HTMLElement>(null);
  useEffect(() => {
    const moved = () => {
      setCurrent(place());
      main.current?.focus();
    };
    addEventListener("hashchange", moved);
    const deaf = onKeyWanted(() => setWanted(true));
    return () => {
      removeEventListener("hashchange", moved);
      deaf();
    };
  }, []);
  useEffect(() => void watchesRuns().then(setHasRuns), [tries]);
  const shown = PAGES[current]!;
  useEffect(() => {
    document.title = `${shown.title} – karat`;
  }, [current]);
  return (
    <>
      <a class="skip" href={`#/${current}`} onClick={() => main.current?.focus()}>
        Skip to the page
      </a>
      <header class="top">
        <span class="name">karat</span>
        <nav aria-label="Pages">
          {Object.entries(PAGES)
            .filter(([name]) => name !== "runs" || hasRuns)
            .map(([name, { title }]) => (
              <a key={name} href={`#/${name}`} aria-current={name === current ? "page" : undefined}>
                {title}
              </a>
            ))}
        </nav>
      </header>
      {wanted && (
        <KeyForm
          onDone={() => {
            setWanted(false);
            setTries(tries + 1);
          }}
        />
      )}
      <main ref={main} tabIndex={-1}>
        <shown.page key={`${current} ${tries}`} />
      </main>
    </>
  );
}

function KeyForm({ onDone }: { onDone: () => void }): JSX.Element {
  const [written, setWritten] = useState(key());
  return (
    <form
      class="key-form"
      aria-label="Key"
      onSubmit={(event) => {
        event.preventDefault();
        setKey(written.trim());
        onDone();
      }}
    >
      <Field label="This server wants a key" hint="It is kept until this tab is closed, and sent to this server alone.">
        {(id) => <input id={id} type="password" autocomplete="off" value={written} onInput={(event) => setWritten(event.currentTarget.value)} />}
      </Field>
      <button class="main" type="submit">
        Use it
      </button>
    </form>
  );
}

render(<Console />, document.getElementById("console")!);
