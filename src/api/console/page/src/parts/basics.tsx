// What all pages are made of.

import type { ComponentChildren, JSX } from "preact";
import { useId } from "preact/hooks";
import type { Problem } from "../api";

export function Failure({ problem }: { problem: Problem | null }): JSX.Element {
  // The region is always there, so that a screen reader tells what appears in it.
  return (
    <div role="alert">
      {problem !== null && (
        <p class="failure">
          <strong>{problem.title}.</strong> {problem.message}
        </p>
      )}
    </div>
  );
}

export function Field({ label, hint, children }: { label: string; hint?: string; children: (id: string) => ComponentChildren }): JSX.Element {
  const id = useId();
  return (
    <div class="field">
      <label for={id}>{label}</label>
      {children(id)}
      {hint !== undefined && <small>{hint}</small>}
    </div>
  );
}

export function Choice({ label, value, options, onChange, hint }: { label: string; value: string; options: [value: string, text: string][]; onChange: (value: string) => void; hint?: string }): JSX.Element {
  return (
    <Field label={label} {...(hint === undefined ? {} : { hint })}>
      {(id) => (
        <select id={id} value={value} onChange={(event) => onChange(event.currentTarget.value)}>
          {options.map(([option, text]) => (
            <option key={option} value={option} selected={option === value}>
              {text}
            </option>
          ))}
        </select>
      )}
    </Field>
  );
}

export function Text({ label, value, onInput, rows = 1, hint, code = false }: { label: string; value: string; onInput: (value: string) => void; rows?: number; hint?: string; code?: boolean }): JSX.Element {
  return (
    <Field label={label} {...(hint === undefined ? {} : { hint })}>
      {(id) => (
        <textarea id={id} rows={rows} class={code ? "code" : ""} spellcheck={!code} value={value} onInput={(event) => onInput(event.currentTarget.value)} />
      )}
    </Field>
  );
}

/** Tabs of one page; arrow keys go from one to the next, as in any list of tabs. */
export function Tabs<T extends string>({ label, tabs, current, onChange }: { label: string; tabs: [T, string][]; current: T; onChange: (tab: T) => void }): JSX.Element {
  const move = (event: KeyboardEvent) => {
    const step = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (step === 0) return;
    event.preventDefault();
    const at = tabs.findIndex(([tab]) => tab === current);
    const next = tabs[(at + step + tabs.length) % tabs.length];
    if (next === undefined) return;
    onChange(next[0]);
    const list = event.currentTarget as HTMLElement;
    list.querySelector<HTMLElement>(`[data-tab="${next[0]}"]`)?.focus();
  };
  return (
    <div class="tabs" role="tablist" aria-label={label} onKeyDown={move}>
      {tabs.map(([tab, text]) => (
        <button key={tab} type="button" role="tab" data-tab={tab} aria-selected={tab === current} tabIndex={tab === current ? 0 : -1} onClick={() => onChange(tab)}>
          {text}
        </button>
      ))}
    </div>
  );
}
