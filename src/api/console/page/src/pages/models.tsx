// What is served, how far it has come, and why a model is not there.

import type { JSX } from "preact";
import { Failure } from "../parts/basics";
import { rule } from "../format";
import { useModels } from "../hooks";
import type { Graph, Model } from "../types";

export function Models(): JSX.Element {
  const { value, problem } = useModels();
  return (
    <>
      <h1>Models</h1>
      <Failure problem={problem} />
      {value === null && problem === null && <p>Asking the server …</p>}
      {value?.length === 0 && <p>The server has no models yet: put a checkpoint's folder below the one that it was started with.</p>}
      {value?.map((model) => <Card key={model.id} model={model} />)}
    </>
  );
}

function Card({ model }: { model: Model }): JSX.Element {
  return (
    <article class="card" aria-labelledby={`model-${model.id}`}>
      <header>
        <h2 id={`model-${model.id}`}>{model.id}</h2>
        <span class={`state state-${model.status}`}>{state(model)}</span>
      </header>
      {model.reason !== undefined && <p class="failure">{model.reason}</p>}
      {model.change !== undefined && (
        <p class={model.change.status === "failed" ? "failure" : ""}>
          Its files have changed: {model.change.status}. {model.change.reason}
        </p>
      )}
      {model.description !== undefined && <p>{model.description}</p>}
      {model.version !== undefined && (
        <dl>
          <Fact name="Version" value={<code>{model.version}</code>} />
          {model.hub !== undefined && <Fact name="From the Hub" value={model.hub.join(", ")} />}
          <Fact name="Runs on" value={where(model)} />
          <Fact name="Aggregation" value={<code>{rule(model.aggregate)}</code>} />
          <Fact name="Transforms" value={model.transforms?.length ? <code>{model.transforms.map(rule).join(" → ")}</code> : "none"} />
          <Fact name="Longest sample" value={`${model.max_tokens} tokens`} />
          {model.graphs?.some((graph) => graph.trial !== undefined) === true && <Fact name="Alone and in company" value={model.graphs.map(trial).join("; ")} />}
          <Fact name="Expected scores" value={expected(model)} />
          {model.license !== undefined && <Fact name="Licence" value={model.license} />}
        </dl>
      )}
      {model.version !== undefined && (
        <details>
          <summary>All that the server says of {model.id}</summary>
          <pre tabIndex={0}>{JSON.stringify(model, null, 2)}</pre>
        </details>
      )}
    </article>
  );
}

function Fact({ name, value }: { name: string; value: JSX.Element | string }): JSX.Element {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  );
}

function state(model: Model): string {
  return model.status === "building" ? `building engines for ${model.building_seconds ?? 0} s` : model.status;
}

function where(model: Model): string {
  if (model.ensemble?.length) return `the models ${model.ensemble.join(", ")}`;
  return (model.graphs ?? []).map(graph).join("; ");
}

function graph(graph: Graph): string {
  const ways = [
    graph.packed ? "packed rows" : "",
    graph.shares_prefixes ? "prompts computed once" : "",
    graph.runs_alone ? "each sample alone" : "",
    ...(graph.skipped_providers ?? []).map(({ provider, reason }) => `not ${provider}: ${reason}`),
  ];
  const told = ways.filter((way) => way !== "").join(", ");
  return told === "" ? graph.provider : `${graph.provider} (${told})`;
}

function trial({ trial }: Graph): string {
  if (trial === undefined) return "not tried";
  const found = trial.largest_difference === undefined ? "" : `largest difference ${trial.largest_difference.toExponential(1)} of ${trial.tolerance.toExponential(1)}`;
  const told = [trial.broken ? "broken" : "", found, trial.reason ?? ""].filter((part) => part !== "");
  return told.length === 0 ? "not tried in company" : told.join(", ");
}

function expected(model: Model): string {
  const references = model.references;
  if (references === null || references === undefined) return "none lie beside the model";
  return `${references.count} texts, largest difference ${references.largest_difference.toExponential(1)} of ${references.tolerance.toExponential(1)}`;
}
