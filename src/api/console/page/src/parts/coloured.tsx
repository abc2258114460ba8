// A text whose parts are coloured by their rewards.

import type { JSX } from "preact";
import { reward } from "../format";

export interface Part {
  text: string;
  /** Without one the part has no colour. */
  reward: number | null;
}

/** How strong the colour of a reward is, from 0 to 4: by its place among all of them. */
function strength(value: number, low: number, high: number): number {
  return high === low ? 0 : Math.round((4 * (high - value)) / (high - low));
}

export function Coloured({ parts }: { parts: Part[] }): JSX.Element {
  const rewards = parts.flatMap((part) => (part.reward === null ? [] : [part.reward]));
  const low = Math.min(...rewards);
  const high = Math.max(...rewards);
  return (
    <p class="coloured">
      {parts.map((part, index) =>
        part.reward === null ? (
          part.text
        ) : (
          <mark key={index} class={`heat-${strength(part.reward, low, high)}`} title={reward(part.reward)}>
            {part.text}
            <sub>{reward(part.reward)}</sub>
          </mark>
        ),
      )}
    </p>
  );
}

/** Cuts a text where its tokens are; ranges count characters as Unicode does, not as JavaScript. */
export function parts(text: string, tokens: { text: { start: number; end: number } | null; reward: number }[]): Part[] {
  const letters = [...text];
  const cut: Part[] = [];
  let at = 0;
  for (const { text: range, reward } of tokens) {
    if (range === null || range.start < at) continue;
    if (range.start > at) cut.push({ text: letters.slice(at, range.start).join(""), reward: null });
    cut.push({ text: letters.slice(range.start, range.end).join(""), reward });
    at = range.end;
  }
  if (at < letters.length) cut.push({ text: letters.slice(at).join(""), reward: null });
  return cut;
}
