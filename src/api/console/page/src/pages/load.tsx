// What the server is doing right now, out of its metrics for Prometheus.

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { text } from "../api";
import { Choice, Failure } from "../parts/basics";
import { Plot } from "../parts/plot";
import { bytes, count, percent } from "../format";
import { useModels, usePolled } from "../hooks";
import { read, total, type Reading } from "../metrics";

const EVERY = 2000;
/** Five minutes of readings. */
const KEPT = 150;

interface Moment {
  at: number;
  reading: Reading;
}

/** What is drawn of two readings, one after the other. */
interface Point {
  at: number;
  tokens: number;
  padding: number;
  samples: number;
  batch: number;
  cache: number;
  prefix: number;
  requests: number;
  refused: number;
}

export function Load(): JSX.Element {
  const models = useModels();
  const [model, setModel] = useState("");
  const history = useRef<Moment[]>([]);
  const [moments, setMoments] = useState<Moment[]>([]);
  const { value, problem } = usePolled(async (signal) => ({ at: Date.now() / 1000, reading: read(await text("/metrics", signal)) }), EVERY);
  useEffect(() => {
    if (value === null) return;
    history.current = [...history.current, value].slice(-KEPT);
    setMoments(history.current);
  }, [value]);
  const points = moments.slice(1).map((moment, index) => point(moments[index]!, moment, model));
  const last = points.at(-1);
  const now = moments.at(-1)?.reading;
  const names: [string, string][] = (models.value ?? []).map(({ id }) => [id, id]);
  const drawn = (...of: ((point: Point) => number)[]) => [points.map(({ at }) => at), ...of.map((value) => points.map(value))] as [number[], ...number[][]];
  return (
    <>
      <h1>Load</h1>
      <Failure problem={problem} />
      <Choice label="Model" value={model} options={[["", "all models"], ...names]} onChange={setModel} />
      {(last === undefined || now === undefined) && problem === null && <p>Two readings make a rate; the second comes in {EVERY / 1000} s.</p>}
      {last !== undefined && now !== undefined && (
        <>
          <dl class="figures">
            <Figure name="Tokens a second" value={count(last.tokens)} />
            <Figure name="Waiting" value={`${count(total(now, "karat_queue_samples", model))} samples`} />
            <Figure name="Samples in a pass" value={Number.isFinite(last.batch) ? last.batch.toFixed(1) : "–"} />
            <Figure name="Passes running" value={count(total(now, "karat_forward_passes_running", model))} />
            <Figure name="From the cache" value={percent(last.cache)} />
            <Figure name="Prompt tokens known" value={percent(last.prefix)} />
            <Figure name="Caches" value={bytes(total(now, "karat_cache_bytes", "") + total(now, "karat_prefix_cache_bytes", ""))} />
            <Figure name="Passes beyond the device's memory" value={count(total(now, "karat_forward_passes_out_of_memory_total", model))} />
            {model !== "" && <Figure name="Runs on" value={devices(models.value?.find(({ id }) => id === model))} />}
          </dl>
          <div class="plots">
            <Plot title="Tokens a second" curves={[{ label: "scored", colour: 0 }, { label: "padding", colour: 1 }]} data={drawn((p) => p.tokens, (p) => p.padding)} x={{ label: "time", time: true }} y={{ label: "tokens/s", fromZero: true }} />
            <Plot title="Samples that wait" curves={[{ label: "samples", colour: 0 }]} data={drawn((p) => p.samples)} x={{ label: "time", time: true }} y={{ label: "samples", fromZero: true }} />
            <Plot title="Samples in a forward pass" curves={[{ label: "samples", colour: 0 }]} data={drawn((p) => (Number.isFinite(p.batch) ? p.batch : 0))} x={{ label: "time", time: true }} y={{ label: "samples", fromZero: true }} />
            <Plot title="Requests a second, all models" curves={[{ label: "answered", colour: 0 }, { label: "refused or failed", colour: 1 }]} data={drawn((p) => p.requests, (p) => p.refused)} x={{ label: "time", time: true }} y={{ label: "requests/s", fromZero: true }} />
          </div>
        </>
      )}
    </>
  );
}

function devices(model: { graphs?: { provider: string }[] } | undefined): string {
  return [...new Set((model?.graphs ?? []).map((graph) => graph.provider))].join(", ") || "other models";
}

function Figure({ name, value }: { name: string; value: string }): JSX.Element {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  );
}

function point(before: Moment, after: Moment, model: string): Point {
  const grown = (name: string) => Math.max(total(after.reading, name, model) - total(before.reading, name, model), 0);
  const seconds = after.at - before.at || 1;
  const [hits, misses] = [grown("karat_cache_hits_total"), grown("karat_cache_misses_total")];
  const answered = (reading: Reading, bad: boolean) => {
    const counted = (reading.get("karat_http_requests_total") ?? []).filter(({ labels }) => labels["route"] !== "/metrics" && ["4xx", "5xx"].includes(labels["status"] ?? "") === bad);
    return counted.reduce((sum, { value }) => sum + value, 0);
  };
  return {
    at: after.at,
    tokens: grown("karat_tokens_total") / seconds,
    padding: grown("karat_padding_tokens_total") / seconds,
    samples: total(after.reading, "karat_queue_samples", model),
    batch: grown("karat_batch_samples_sum") / grown("karat_batch_samples_count"),
    cache: hits / (hits + misses),
    prefix: grown("karat_prefix_cached_tokens_total") / grown("karat_prefix_tokens_total"),
    requests: (answered(after.reading, false) - answered(before.reading, false)) / seconds,
    refused: (answered(after.reading, true) - answered(before.reading, true)) / seconds,
  };
}
