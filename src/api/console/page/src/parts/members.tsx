// An ensemble's members as points on a line, with what the rules make of them.

import type { JSX } from "preact";
import { reward } from "../format";

export interface Span {
  low: number;
  high: number;
}

/** The span of all that is drawn, so that the lines of all candidates share one scale. */
export function span(all: number[]): Span {
  const [low, high] = all.reduce(([least, most], value) => [Math.min(least, value), Math.max(most, value)], [Infinity, -Infinity]);
  return Number.isFinite(low) ? { low, high } : { low: 0, high: 1 };
}

const WIDTH = 130;
const EDGE = 8;

export function Members({ members, mean, worst, weighted, within }: { members: number[]; mean: number; worst: number; weighted: number | null; within: Span }): JSX.Element {
  const place = (value: number) => {
    const share = (value - within.low) / (within.high - within.low || 1);
    return EDGE + Math.min(Math.max(share, 0), 1) * (WIDTH - 2 * EDGE);
  };
  const told = `${members.length} members from ${reward(Math.min(...members))} to ${reward(Math.max(...members))}, mean ${reward(mean)}`;
  return (
    <svg class="members" viewBox={`0 0 ${WIDTH} 22`} width={WIDTH} height={22} role="img" aria-label={told}>
      <line x1={EDGE} x2={WIDTH - EDGE} y1={11} y2={11} />
      <path class="worst" d={`M${place(worst)} 2v18`} />
      <path class="mean" d={`M${place(mean)} 2v18`} />
      {weighted !== null && <path class="weighted" d={`M${place(weighted) - 4} 1h8l-4 6z`} />}
      {members.map((member, index) => (
        <circle key={index} cx={place(member)} cy={11} r={4} />
      ))}
    </svg>
  );
}
