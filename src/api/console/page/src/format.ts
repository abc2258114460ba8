// Numbers and words as the console writes them.

import type { Rule } from "./types";

/** A reward, to three digits after the point. */
export function reward(value: number | null | undefined): string {
  return value === null || value === undefined || !Number.isFinite(value) ? "–" : value.toFixed(3).replace("-", "−");
}

/** A large number, shortened. */
export function count(value: number): string {
  return new Intl.NumberFormat("en-GB", { notation: value < 10_000 ? "standard" : "compact", maximumFractionDigits: 1 }).format(value);
}

export function percent(share: number): string {
  return Number.isFinite(share) ? `${(100 * share).toFixed(1)} %` : "–";
}

export function bytes(value: number): string {
  const units = ["B", "KiB", "MiB", "GiB"];
  let unit = 0;
  let left = value;
  while (left >= 1024 && unit < units.length - 1) {
    left /= 1024;
    unit += 1;
  }
  return `${left.toFixed(left < 10 && unit > 0 ? 1 : 0)} ${units[unit]}`;
}

/** A rule as one would write it in a request. */
export function rule(value: Rule | undefined): string {
  return value === undefined ? "–" : typeof value === "string" ? value : JSON.stringify(value);
}

/** A text on one line, cut where it is long. */
export function brief(text: string, most = 120): string {
  const line = text.replace(/\s+/g, " ").trim();
  return line.length > most ? `${line.slice(0, most)}…` : line;
}
