// Candidates for one prompt, ranked by several rules side by side.
//
// Members are computed once. Another rule is another request, which the server answers from its cache of scores: the line
// under the table tells how many tokens it had to compute.

import type { JSX } from "preact";
import { useMemo, useState } from "preact/hooks";
import { post, Problem } from "../../api";
import { Failure, Field, Text } from "../../parts/basics";
import { Members, span } from "../../parts/members";
import { Plot } from "../../parts/plot";
import { NOTHING_CHOSEN, overrides, ScorerChoice, useAggregations, withModel, type Scorer } from "../../parts/rules";
import { brief, count, reward } from "../../format";
import { useAction } from "../../hooks";
import type { BestOfN, Model, Scores } from "../../types";

interface Asked {
  prompt: string;
  candidates: string[];
}

interface Tried extends Asked {
  chosen: BestOfN;
  weighted: Scores;
}

const EXAMPLE: Asked = {
  prompt: "How do I get my money back from a shop?",
  candidates: ["Ask for the manager and bring the receipt.", "Return it and say nothing.", "Just take something else of the same price."],
};
/** More rows than this make a page slow to lay out. */
const SHOWN = 100;

export function Candidates({ models }: { models: Model[] }): JSX.Element {
  const aggregations = useAggregations();
  const [choice, setScorer] = useState<Scorer>(NOTHING_CHOSEN);
  const scorer = withModel(choice, models);
  const [lambda, setLambda] = useState(0.5);
  const [asked, setAsked] = useState<Asked>(EXAMPLE);
  const [pasted, setPasted] = useState<string | null>(null);
  const [tried, setTried] = useState<Tried | null>(null);
  const score = useAction(async (signal, scorer: Scorer, lambda: number) => {
    const { prompt, candidates } = pasted === null ? asked : unpacked(pasted);
    const body = { prompt, candidates, include: ["members"] };
    const chosen = await post<BestOfN>("/v1/best-of-n", { ...body, ...overrides(scorer), curve: true }, signal);
    // The members are known now, so this computes nothing.
    const rule = { aggregate: { uncertainty_weighted: { lambda } }, transforms: [] };
    const weighted = await post<Scores>("/v1/best-of-n", { ...body, ...rule, model: scorer.model }, signal);
    setTried({ prompt, candidates, chosen, weighted });
  });
  // Once there is a result, another rule shows at once.
  const change = (next: Scorer, lambda: number) => {
    setScorer(next);
    setLambda(lambda);
    if (tried !== null && next.model !== "") score.run(next, lambda);
  };
  return (
    <div class="columns">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          score.run(scorer, lambda);
        }}
      >
        {pasted === null ? <Texts asked={asked} onChange={setAsked} /> : <Text label="JSON" code rows={14} value={pasted} onInput={setPasted} hint={'{"prompt": "…", "candidates": ["…", "…"]}'} />}
        <p class="buttons">
          <button type="button" onClick={() => setPasted(pasted === null ? JSON.stringify(asked, null, 2) : null)}>
            {pasted === null ? "Write JSON instead" : "Write texts instead"}
          </button>
        </p>
        <ScorerChoice models={models} aggregations={aggregations} value={scorer} onChange={(next) => change(next, lambda)} />
        <Field label={`λ of the uncertainty-weighted score: ${lambda.toFixed(2)}`}>
          {(id) => <input id={id} type="range" min="0" max="4" step="0.05" value={lambda} onInput={(event) => change(scorer, Number(event.currentTarget.value))} />}
        </Field>
        <p class="buttons">
          <button class="main" type="submit" disabled={scorer.model === ""}>
            Score
          </button>
          <span role="status">{score.busy ? "Scoring …" : ""}</span>
        </p>
        <Failure problem={score.problem} />
      </form>
      {tried !== null && <Ranking tried={tried} lambda={lambda} />}
    </div>
  );
}

function unpacked(text: string): Asked {
  const wrong = (reason: string) => new Problem(0, "The request can't be sent", reason);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw wrong(`this isn't JSON: ${error instanceof Error ? error.message : "unreadable"}`);
  }
  const { prompt, candidates, responses } = (value ?? {}) as { prompt?: unknown; candidates?: unknown; responses?: unknown };
  const list = candidates ?? responses;
  if (typeof prompt !== "string" || !Array.isArray(list) || !list.every((one) => typeof one === "string")) {
    throw wrong('write {"prompt": "…", "candidates": ["…", "…"]}');
  }
  return { prompt, candidates: list };
}

function Texts({ asked, onChange }: { asked: Asked; onChange: (asked: Asked) => void }): JSX.Element {
  const candidates = asked.candidates;
  const put = (index: number, text: string) => onChange({ ...asked, candidates: candidates.map((old, at) => (at === index ? text : old)) });
  return (
    <>
      <Text label="Prompt" rows={2} value={asked.prompt} onInput={(prompt) => onChange({ ...asked, prompt })} />
      {candidates.map((candidate, index) => (
        <div key={index} class="candidate">
          <Text label={`Candidate ${index + 1}`} rows={2} value={candidate} onInput={(text) => put(index, text)} />
          {candidates.length > 1 && (
            <button type="button" aria-label={`Remove candidate ${index + 1}`} onClick={() => onChange({ ...asked, candidates: candidates.filter((_, at) => at !== index) })}>
              ×
            </button>
          )}
        </div>
      ))}
      <p class="buttons">
        <button type="button" onClick={() => onChange({ ...asked, candidates: [...candidates, ""] })}>
          Add a candidate
        </button>
      </p>
    </>
  );
}

function Ranking({ tried, lambda }: { tried: Tried; lambda: number }): JSX.Element {
  const { chosen, weighted, candidates } = tried;
  const [all, setAll] = useState(false);
  const within = useMemo(() => span([...chosen.results.flatMap((result) => result.ensemble.members ?? []), ...weighted.results.map((result) => result.reward)]), [chosen, weighted]);
  const best = {
    mean: highest(chosen.results.map((result) => result.ensemble.mean)),
    worst: highest(chosen.results.map((result) => result.ensemble.worst_case)),
    weighted: highest(weighted.results.map((result) => result.reward)),
  };
  const rows = all ? chosen.ranking : chosen.ranking.slice(0, SHOWN);
  const cell = (value: number | undefined, wins: boolean) => <td class={wins ? "number best" : "number"}>{reward(value)}{wins && <span class="hidden"> best</span>}</td>;
  return (
    <section aria-label="Result" class="result">
      <div class="scrolled" tabIndex={0} role="group" aria-label="Ranking">
        <table>
          <caption>
            {chosen.model}, version <code>{chosen.model_version}</code>. Points are members, the lines mean and worst case, the triangle the
            uncertainty-weighted score.
          </caption>
          <thead>
            <tr>
              <th scope="col" class="number">Rank</th>
              <th scope="col">Candidate</th>
              <th scope="col">Members</th>
              <th scope="col" class="number">Reward</th>
              <th scope="col" class="number">Mean</th>
              <th scope="col" class="number">Worst</th>
              <th scope="col" class="number">λ = {lambda.toFixed(2)}</th>
            </tr>
          </thead>
          <tbody>
            {rows.map(({ index, rank }) => {
              const result = chosen.results[index];
              const other = weighted.results[index];
              if (result === undefined) return null;
              const { mean, worst_case: worst, members = [] } = result.ensemble;
              return (
                <tr key={index}>
                  <td class="number">{rank}</td>
                  <td class="text" title={candidates[index]}>
                    {brief(candidates[index] ?? "")}
                    {result.truncated && <em> (cut)</em>}
                  </td>
                  <td>
                    <Members members={members} mean={mean} worst={worst} weighted={other?.reward ?? null} within={within} />
                  </td>
                  {cell(result.reward, index === chosen.best)}
                  {cell(mean, index === best.mean)}
                  {cell(worst, index === best.worst)}
                  {cell(other?.reward, index === best.weighted)}
                </tr>
              );
            })}
          </tbody>
        </table>
      </div>
      {rows.length < chosen.ranking.length && (
        <p class="buttons">
          <button type="button" onClick={() => setAll(true)}>
            Show all {chosen.ranking.length}
          </button>
        </p>
      )}
      <p role="status">
        {chosen.usage.cached_tokens === chosen.usage.tokens
          ? "No forward pass: every member was known."
          : `${count(chosen.usage.tokens - chosen.usage.cached_tokens)} of ${count(chosen.usage.tokens)} tokens were computed.`}
      </p>
      <BestOfNCurve curve={chosen.curve ?? []} />
    </section>
  );
}

function highest(values: number[]): number {
  return values.reduce((best, value, index) => (value > (values[best] ?? -Infinity) ? index : best), 0);
}

function BestOfNCurve({ curve }: { curve: NonNullable<BestOfN["curve"]> }): JSX.Element | null {
  const data = useMemo<[number[], number[]]>(() => [curve.map(({ n }) => n), curve.map(({ proxy }) => proxy)], [curve]);
  const last = curve.at(-1);
  if (curve.length < 2 || last === undefined) return null;
  return (
    <Plot
      title={`Expected reward of the best of n: ${reward(curve[0]?.proxy)} for one, ${reward(last.proxy)} for ${last.n}`}
      curves={[{ label: "best of n", colour: 0 }]}
      data={data}
      x={{ label: "n", log: curve.length > 8, whole: true }}
      y={{ label: "reward" }}
    />
  );
}
