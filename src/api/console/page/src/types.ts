// What the console reads of the API's replies; openapi.json has all of it.

/** A rule by its name, or with parameters as `{name: {…}}`. */
export type Rule = string | Record<string, unknown>;

export interface Graph {
  provider: string;
  skipped_providers?: { provider: string; reason: string }[];
  runs_alone: boolean;
  shares_prefixes: boolean;
  packed: boolean;
  /** Whether a text's score is the same whatever it is batched with. */
  trial?: { largest_difference?: number; tolerance: number; reason?: string; broken: boolean };
}

export interface Model {
  id: string;
  status: "ready" | "loading" | "building" | "failed" | "unloaded";
  building_seconds?: number;
  reason?: string;
  /** What stands between the model that takes requests and the files of its folder. */
  change?: { status: string; reason?: string };
  version?: string;
  hub?: string[];
  description?: string;
  license?: string;
  max_tokens?: number;
  aggregate?: Rule;
  transforms?: Rule[];
  references?: { count: number; largest_difference: number; tolerance: number } | null;
  graphs?: Graph[];
  ensemble?: string[];
}

export interface SampleResult {
  index: number;
  reward: number;
  raw: number;
  ensemble: { mean: number; worst_case: number; variance: number; members?: number[] };
  objectives?: Record<string, number>;
  tokens: number;
  truncated: boolean;
}

export interface Usage {
  tokens: number;
  cached_tokens: number;
}

export interface Envelope {
  model: string;
  model_version: string;
  usage: Usage;
}

export interface Scores extends Envelope {
  results: SampleResult[];
}

export interface BestOfN extends Scores {
  best: number | null;
  ranking: { index: number; rank: number; reward: number; behind: number }[];
  curve?: { n: number; proxy: number; divergence: number }[];
}

export interface PairResult {
  index: number;
  margin: number;
  probability: number;
  unanimous: boolean;
}

export interface Compared extends Envelope {
  accuracy: number;
  results: PairResult[];
}

export interface TokenReward {
  text: { start: number; end: number } | null;
  reward: number;
}

export interface Tokens extends Envelope {
  results: { reward: number; token_rewards: TokenReward[] }[];
}

export interface Process extends Envelope {
  results: { reward: number; scores: number[]; rewards: number[] }[];
}

export interface Critique {
  index: number;
  text: string;
  finish: string;
  tokens: number;
  rating?: number | null;
}

export interface CatalogueEntry {
  kind: string;
  name: string;
  summary: string;
  formula: string;
  has_defaults: boolean;
  examples: Record<string, unknown>[];
}

export interface Catalogue {
  sections: { title: string; entries: CatalogueEntry[] }[];
}

export interface RunSummary {
  run: string;
  samples: number;
  last_step: number;
  models: string[];
  firing: string[];
}

/** Statistics of one step, or of some that lie side by side. */
export interface RunStep {
  first_step: number;
  last_step: number;
  samples: number;
  mean: number | null;
  disagreement: number | null;
  worst_case_gap: number | null;
  length: number | null;
  length_correlation: number | null;
  at_bound: number;
  duplicates: number;
}

export interface RunSignal {
  signal: string;
  firing: boolean;
  since_step: number | null;
  reading: { value: number; low: number; high: number; limit: number } | null;
}

export interface RunModel {
  model: string;
  samples: number;
  steps: RunStep[];
  signals: RunSignal[];
}

export interface Run {
  run: string;
  models: RunModel[];
}

export interface SignalEntry {
  name: string;
  summary: string;
  formula: string;
}
