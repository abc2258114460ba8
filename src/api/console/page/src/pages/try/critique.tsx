// A critique as it is written, and the score with the critique in view.

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { events } from "../../api";
import { reward } from "../../format";
import type { Critique as Written, Model } from "../../types";
import { Asking, type Dialogue } from "./asking";

interface Shown {
  text: string;
  end: string;
}

export function Critique({ models }: { models: Model[] }): JSX.Element {
  const [shown, setShown] = useState<Shown | null>(null);
  const ask = async (signal: AbortSignal, { model, prompt, response }: Dialogue) => {
    setShown({ text: "", end: "" });
    for await (const { name, data } of events("/v1/critique", { model, prompt, response, stream: true }, signal)) {
      if (name === "token") {
        const { text } = data as { text: string };
        setShown((last) => ({ text: (last?.text ?? "") + text, end: "" }));
      } else if (name === "critique") {
        const { text, tokens, finish } = data as Written;
        setShown({ text, end: `${tokens} tokens, ended by ${finish}. ` });
      } else if (name === "score") {
        const { reward: value, rating } = data as { reward?: number | null; rating?: number | null };
        const rated = rating === undefined ? "" : ` Rating: ${reward(rating)}.`;
        setShown((last) => ({ text: last?.text ?? "", end: `${last?.end ?? ""}Reward with the critique in view: ${reward(value)}.${rated}` }));
      }
    }
  };
  return (
    <Asking models={models} prompt="What is the capital of France?" response="The capital of France is a purple bicycle." button="Write a critique" hint="For models that write, such as the demo model critic (make setup-decoders)." ask={ask}>
      {shown !== null && (
        <>
          <blockquote class="coloured" aria-live="polite" aria-label="Critique">
            {shown.text}
          </blockquote>
          <p role="status">{shown.end}</p>
        </>
      )}
    </Asking>
  );
}
