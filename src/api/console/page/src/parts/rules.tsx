// Choosing a model, an aggregation and transforms, as every scoring route takes them.

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { get, Problem } from "../api";
import { rule } from "../format";
import type { Catalogue, CatalogueEntry, Model, Rule } from "../types";
import { Choice, Field, Text } from "./basics";

/** What scores, and by which rules; what is empty is as the model's manifest says. */
export interface Scorer {
  model: string;
  aggregate: string;
  /** The aggregation's parameters as JSON. */
  parameters: string;
  /** The transforms as a JSON list. */
  transforms: string;
}

export const NOTHING_CHOSEN: Scorer = { model: "", aggregate: "", parameters: "{}", transforms: "" };

export interface Overrides {
  model: string;
  aggregate?: Rule;
  transforms?: Rule[];
}

/** The fields of a request. */
export function overrides(scorer: Scorer): Overrides {
  const body: Overrides = { model: scorer.model };
  if (scorer.aggregate !== "") body.aggregate = { [scorer.aggregate]: json(scorer.parameters, "the parameters") as Record<string, unknown> };
  if (scorer.transforms.trim() !== "") body.transforms = json(scorer.transforms, "the transforms") as Rule[];
  return body;
}

function json(text: string, what: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    const reason = error instanceof Error ? error.message : "unreadable";
    throw new Problem(0, "The request can't be sent", `${what} aren't JSON: ${reason}`);
  }
}

/** The aggregations that the server knows. */
export function useAggregations(): CatalogueEntry[] {
  const [known, setKnown] = useState<CatalogueEntry[]>([]);
  useEffect(() => {
    const own = new AbortController();
    get<Catalogue>("/v1/catalogue", own.signal).then(
      (catalogue) => setKnown(catalogue.sections.flatMap((section) => section.entries).filter((entry) => entry.kind === "aggregation")),
      // Without the catalogue, rules are as the model says.
      () => undefined,
    );
    return () => own.abort();
  }, []);
  return known;
}

function ready(models: Model[]): Model[] {
  return models.filter((model) => model.status === "ready");
}

/** What was chosen, or the first model that can score until somebody chooses; empty while there is none. */
export function withModel<Choice extends { model: string }>(choice: Choice, models: Model[]): Choice {
  return choice.model === "" ? { ...choice, model: ready(models)[0]?.id ?? "" } : choice;
}

export function ModelChoice({ models, value, onChange, label = "Model" }: { models: Model[]; value: string; onChange: (model: string) => void; label?: string }): JSX.Element {
  return <Choice label={label} value={value} options={ready(models).map((model) => [model.id, model.id])} onChange={onChange} />;
}

export function ScorerChoice({ models, aggregations, value, onChange, name }: { models: Model[]; aggregations: CatalogueEntry[]; value: Scorer; onChange: (scorer: Scorer) => void; name?: string }): JSX.Element {
  const model = models.find((known) => known.id === value.model);
  const chosen = aggregations.find((entry) => entry.name === value.aggregate);
  const own = name === undefined ? "" : ` ${name}`;
  const usual: [string, string] = ["", `as the model says: ${rule(model?.aggregate)}`];
  const choose = (aggregate: string) => {
    const example = aggregations.find((entry) => entry.name === aggregate)?.examples[0];
    onChange({ ...value, aggregate, parameters: JSON.stringify(example ?? {}) });
  };
  return (
    <div class="scorer">
      <ModelChoice models={models} value={value.model} label={`Model${own}`} onChange={(id) => onChange({ ...value, model: id })} />
      <Choice
        label={`Aggregation${own}`}
        value={value.aggregate}
        options={[usual, ...aggregations.map((entry): [string, string] => [entry.name, entry.name.replaceAll("_", " ")])]}
        onChange={choose}
        {...(chosen === undefined ? {} : { hint: chosen.formula })}
      />
      {chosen !== undefined && value.parameters !== "{}" && (
        <Field label={`Parameters${own}`}>
          {(id) => <input id={id} class="code" value={value.parameters} onInput={(event) => onChange({ ...value, parameters: event.currentTarget.value })} />}
        </Field>
      )}
      <Text
        label={`Transforms${own}`}
        code
        value={value.transforms}
        onInput={(transforms) => onChange({ ...value, transforms })}
        hint={`A JSON list, such as [{"clip": {"min": -5}}]; empty: as the model says${model?.transforms?.length ? `, ${rule(model.transforms as unknown as Rule)}` : ", none"}.`}
      />
    </div>
  );
}
