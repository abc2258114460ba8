// The training runs that the server watches: what each model gave at each step, and which signals of over-optimisation
// fire.

import type { JSX } from "preact";
import { useEffect, useMemo, useState } from "preact/hooks";
import { get } from "../api";
import { count, percent, reward } from "../format";
import { usePolled } from "../hooks";
import { Choice, Failure } from "../parts/basics";
import { Plot } from "../parts/plot";
import type { Run, RunModel, RunSignal, RunStep, RunSummary, SignalEntry } from "../types";

const EVERY = 5000;

/** Whether the server watches runs at all. */
export async function watchesRuns(): Promise<boolean> {
  try {
    await get("/v1/runs");
    return true;
  } catch {
    return false;
  }
}

export function Runs(): JSX.Element {
  const { value, problem } = usePolled(async (signal) => (await get<{ runs: RunSummary[] }>("/v1/runs", signal)).runs, EVERY);
  const [chosen, setChosen] = useState("");
  const run = chosen === "" ? value?.[0]?.run : chosen;
  return (
    <>
      <h1>Runs</h1>
      <Failure problem={problem} />
      {value?.length === 0 && <p>No run yet: a scoring request that names a run and a step begins one.</p>}
      {run !== undefined && value !== null && value.length > 0 && (
        <>
          <Choice label="Run" value={run} options={value.map((one) => [one.run, told(one)])} onChange={setChosen} />
          <Shown key={run} run={run} />
        </>
      )}
    </>
  );
}

function told({ run, samples, last_step: step, firing }: RunSummary): string {
  const signals = firing.length === 0 ? "no signal fires" : `${firing.length} firing: ${firing.join(", ")}`;
  return `${run}: step ${step}, ${count(samples)} samples, ${signals}`;
}

function useSignals(): Map<string, SignalEntry> {
  const [known, setKnown] = useState(new Map<string, SignalEntry>());
  useEffect(() => {
    const own = new AbortController();
    get<{ signals: SignalEntry[] }>("/v1/signals", own.signal).then(
      ({ signals }) => setKnown(new Map(signals.map((entry) => [entry.name, entry]))),
      // Without them, signals have their names alone.
      () => undefined,
    );
    return () => own.abort();
  }, []);
  return known;
}

function Shown({ run }: { run: string }): JSX.Element {
  const { value, problem } = usePolled((signal) => get<Run>(`/v1/runs/${encodeURIComponent(run)}`, signal), EVERY);
  const signals = useSignals();
  return (
    <>
      <Failure problem={problem} />
      {value?.models.map((model) => <Scored key={model.model} model={model} signals={signals} />)}
    </>
  );
}

function Scored({ model, signals }: { model: RunModel; signals: Map<string, SignalEntry> }): JSX.Element {
  const last = model.steps.at(-1);
  return (
    <section aria-label={model.model} class="result">
      <h2>
        {model.model}: {count(model.samples)} samples
      </h2>
      {last !== undefined && (
        <dl class="figures">
          <Figure name="Mean reward" value={reward(last.mean)} />
          <Figure name="Members' disagreement" value={reward(last.disagreement)} />
          <Figure name="Worst case below the mean" value={reward(last.worst_case_gap)} />
          <Figure name="Reward explained by length" value={reward(last.length_correlation)} />
          <Figure name="At a clip's bound" value={percent(last.at_bound)} />
          <Figure name="Seen before" value={percent(last.duplicates)} />
        </dl>
      )}
      <Signals signals={model.signals} known={signals} />
      {model.steps.length > 1 && <Steps steps={model.steps} />}
    </section>
  );
}

function Figure({ name, value }: { name: string; value: string }): JSX.Element {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  );
}

function Signals({ signals, known }: { signals: RunSignal[]; known: Map<string, SignalEntry> }): JSX.Element {
  const sorted = [...signals].sort((a, b) => Number(b.firing) - Number(a.firing));
  return (
    <div class="scrolled" tabIndex={0} role="group" aria-label="Signals">
      <table>
        <caption>A signal fires where the whole interval of its value lies above its limit.</caption>
        <thead>
          <tr>
            <th scope="col">Signal</th>
            <th scope="col">State</th>
            <th scope="col" class="number">Value</th>
            <th scope="col" class="number">Interval</th>
            <th scope="col" class="number">Limit</th>
          </tr>
        </thead>
        <tbody>
          {sorted.map(({ signal, firing, since_step: since, reading }) => (
            <tr key={signal}>
              <td class="text" title={known.get(signal)?.formula}>
                {signal.replaceAll("_", " ")}
                <br />
                <small>{known.get(signal)?.summary}</small>
              </td>
              <td class={firing ? "fires" : ""}>{firing ? `fires since step ${since ?? "?"}` : reading === null ? "too little to tell" : "quiet"}</td>
              <td class="number">{reward(reading?.value)}</td>
              <td class="number">{reading === null ? "–" : `${reward(reading.low)} to ${reward(reading.high)}`}</td>
              <td class="number">{reward(reading?.limit)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Steps({ steps }: { steps: RunStep[] }): JSX.Element {
  const drawn = (...of: ((step: RunStep) => number | null)[]) => [steps.map((step) => step.last_step), ...of.map((value) => steps.map(value))] as [number[], ...(number | null)[][]];
  const rewards = useMemo(() => drawn((step) => step.mean, (step) => (step.mean === null || step.worst_case_gap === null ? null : step.mean - step.worst_case_gap)), [steps]);
  const disagreement = useMemo(() => drawn((step) => step.disagreement), [steps]);
  const lengths = useMemo(() => drawn((step) => step.length), [steps]);
  const x = { label: "step", whole: true };
  return (
    <div class="plots">
      <Plot title="Reward by step" curves={[{ label: "mean", colour: 0 }, { label: "mean less the worst case's gap", colour: 1 }]} data={rewards} x={x} y={{ label: "reward" }} />
      <Plot title="Members' disagreement by step" curves={[{ label: "deviation", colour: 0 }]} data={disagreement} x={x} y={{ label: "deviation" }} />
      <Plot title="Length of responses by step" curves={[{ label: "characters", colour: 0 }]} data={lengths} x={x} y={{ label: "characters" }} />
    </div>
  );
}
