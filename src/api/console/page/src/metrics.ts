// Prometheus's text format, as far as karat writes it, and rates out of two readings.

export interface Series {
  labels: Record<string, string>;
  value: number;
}

/** Every series by its metric's name. */
export type Reading = Map<string, Series[]>;

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

export function read(text: string): Reading {
  const reading: Reading = new Map();
  for (const line of text.split("\n")) {
    const [, name, labels, value] = LINE.exec(line) ?? [];
    if (name === undefined || value === undefined) continue;
    const named = [...(labels ?? "").matchAll(LABEL)].map(([, label, content]) => [label, content]);
    const series = { labels: Object.fromEntries(named) as Record<string, string>, value: Number(value) };
    reading.set(name, [...(reading.get(name) ?? []), series]);
  }
  return reading;
}

/** The sum of a metric over all its series, or over those of one model. */
export function total(reading: Reading, name: string, model: string): number {
  const series = (reading.get(name) ?? []).filter(({ labels }) => model === "" || labels["model"] === model);
  return series.reduce((sum, { value }) => sum + value, 0);
}
