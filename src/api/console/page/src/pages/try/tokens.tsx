// A response with its tokens coloured by their rewards, for models with a token head.

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { post } from "../../api";
import { reward } from "../../format";
import { Coloured, parts, type Part } from "../../parts/coloured";
import type { Model, Tokens as Reply } from "../../types";
import { Asking, type Dialogue } from "./asking";

export function Tokens({ models }: { models: Model[] }): JSX.Element {
  const [shown, setShown] = useState<{ parts: Part[]; reward: number } | null>(null);
  const ask = async (signal: AbortSignal, { model, prompt, response }: Dialogue) => {
    const reply = await post<Reply>("/v1/tokens", { model, inputs: [{ prompt, response }] }, signal);
    const result = reply.results[0];
    setShown(result === undefined ? null : { parts: parts(response, result.token_rewards), reward: result.reward });
  };
  return (
    <Asking models={models} prompt="" response="I has two dog ." button="Score tokens" hint="For models with a token head, such as the demo model grammar." ask={ask}>
      {shown !== null && (
        <>
          <Coloured parts={shown.parts} />
          <p>Reward of the whole response: {reward(shown.reward)}. The deeper the colour, the lower the token's reward.</p>
        </>
      )}
    </Asking>
  );
}
