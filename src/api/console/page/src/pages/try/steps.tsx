// A solution with its steps coloured by their scores, for models with a process head.

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { post } from "../../api";
import { reward } from "../../format";
import { Coloured, type Part } from "../../parts/coloured";
import type { Model, Process } from "../../types";
import { Asking, type Dialogue } from "./asking";

export function Steps({ models }: { models: Model[] }): JSX.Element {
  const [shown, setShown] = useState<{ parts: Part[]; reward: number } | null>(null);
  const ask = async (signal: AbortSignal, { model, prompt, response }: Dialogue) => {
    const steps = response.split(/\n\s*\n/).filter((step) => step.trim() !== "");
    const reply = await post<Process>("/v1/process", { model, inputs: [{ prompt, steps }] }, signal);
    const result = reply.results[0];
    const cut = steps.map((text, index) => ({ text: `${text}\n`, reward: result?.rewards[index] ?? null }));
    setShown(result === undefined ? null : { parts: cut, reward: result.reward });
  };
  const example = "There are 2 + 3 = 5 apples.\n\nHalf of them are 3 apples.\n\nThe answer is 3.";
  return (
    <Asking models={models} prompt="Anna has 2 apples, Ben has 3. They eat half. How many are left?" response={example} button="Score steps" hint="For models with a process head. A blank line ends a step." ask={ask}>
      {shown !== null && (
        <>
          <Coloured parts={shown.parts} />
          <p>Reward of the whole solution: {reward(shown.reward)}. The deeper the colour, the lower the step's reward.</p>
        </>
      )}
    </Asking>
  );
}
