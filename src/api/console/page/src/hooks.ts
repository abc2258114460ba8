// How pages ask the server: once, again and again, or when somebody presses a button.

import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { get, Problem } from "./api";
import type { Model } from "./types";

export interface Asked<T> {
  value: T | null;
  problem: Problem | null;
}

function asProblem(error: unknown): Problem | null {
  if (error instanceof Problem) return error;
  if (error instanceof DOMException && error.name === "AbortError") return null;
  return new Problem(0, "The page failed", error instanceof Error ? error.message : String(error));
}

/** Asks at once and then every so many milliseconds, but not while nobody looks at the page. */
export function usePolled<T>(ask: (signal: AbortSignal) => Promise<T>, every: number): Asked<T> {
  const [asked, setAsked] = useState<Asked<T>>({ value: null, problem: null });
  const latest = useRef(ask);
  latest.current = ask;
  useEffect(() => {
    const ended = new AbortController();
    let timer = 0;
    const step = async () => {
      if (!document.hidden) {
        try {
          const value = await latest.current(ended.signal);
          if (!ended.signal.aborted) setAsked({ value, problem: null });
        } catch (error) {
          const problem = asProblem(error);
          if (problem !== null && !ended.signal.aborted) setAsked((last) => ({ value: last.value, problem }));
        }
      }
      if (!ended.signal.aborted) timer = window.setTimeout(step, every);
    };
    void step();
    return () => {
      ended.abort();
      window.clearTimeout(timer);
    };
  }, [every]);
  return asked;
}

export interface Action<A extends unknown[]> {
  run: (...args: A) => void;
  stop: () => void;
  busy: boolean;
  problem: Problem | null;
}

/** Work that somebody starts; starting it again gives up what is still under way. */
export function useAction<A extends unknown[]>(work: (signal: AbortSignal, ...args: A) => Promise<void>): Action<A> {
  const [state, setState] = useState<{ busy: boolean; problem: Problem | null }>({ busy: false, problem: null });
  const running = useRef<AbortController | null>(null);
  const latest = useRef(work);
  latest.current = work;
  useEffect(() => () => running.current?.abort(), []);
  const stop = useCallback(() => running.current?.abort(), []);
  const run = useCallback((...args: A) => {
    running.current?.abort();
    const own = new AbortController();
    running.current = own;
    setState({ busy: true, problem: null });
    const ended = (problem: Problem | null) => {
      if (running.current === own) setState({ busy: false, problem });
    };
    latest.current(own.signal, ...args).then(
      () => ended(null),
      (error: unknown) => ended(asProblem(error)),
    );
  }, []);
  return { run, stop, ...state };
}

/** The server's models, asked for every few seconds so that loading is seen. */
export function useModels(): Asked<Model[]> {
  return usePolled(async (signal) => (await get<{ data: Model[] }>("/v1/models", signal)).data, 3000);
}
