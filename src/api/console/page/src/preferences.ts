// A file of preferences or of responses, in the shapes that are published.

import { Problem } from "./api";

export interface Preference {
  prompt: string;
  chosen: string;
  rejected: string;
  subset: string;
}

/** The rows of a file: JSON Lines, or one JSON list. */
function rows(text: string): Record<string, unknown>[] {
  const trimmed = text.trim();
  const wrong = (place: string, error: unknown) => new Problem(0, "The file can't be read", `${place}: ${error instanceof Error ? error.message : "no JSON"}`);
  if (trimmed.startsWith("[")) {
    try {
      return JSON.parse(trimmed) as Record<string, unknown>[];
    } catch (error) {
      throw wrong("the list", error);
    }
  }
  return trimmed.split("\n").flatMap((line, index) => {
    if (line.trim() === "") return [];
    try {
      return [JSON.parse(line) as Record<string, unknown>];
    } catch (error) {
      throw wrong(`line ${index + 1}`, error);
    }
  });
}

/** Preferences: prompt, chosen and rejected as texts, dialogues that share their beginning, or Anthropic's transcripts. */
export function preferences(text: string): Preference[] {
  const found = rows(text).map((row, index) => {
    const read = preference(row);
    if (read === null) {
      throw new Problem(0, "The file can't be read", `row ${index + 1} has no prompt, chosen and rejected that are texts`);
    }
    return read;
  });
  if (found.length === 0) throw new Problem(0, "The file can't be read", "it holds no rows");
  return found;
}

function preference(row: Record<string, unknown>): Preference | null {
  const subset = typeof row["subset"] === "string" ? row["subset"] : "all";
  const chosen = side(row["chosen"]);
  const rejected = side(row["rejected"]);
  if (chosen === null || rejected === null) return null;
  const prompt = typeof row["prompt"] === "string" ? row["prompt"] : chosen.prompt;
  return prompt === null ? null : { prompt, chosen: chosen.response, rejected: rejected.response, subset };
}

const LAST_TURN = "\n\nAssistant:";

function side(value: unknown): { prompt: string | null; response: string } | null {
  if (Array.isArray(value)) {
    const turns = value as { role?: string; content?: unknown }[];
    const question = turns.at(-2)?.content;
    const answer = turns.at(-1)?.content;
    return turns.length === 2 && typeof question === "string" && typeof answer === "string" ? { prompt: question, response: answer } : null;
  }
  if (typeof value !== "string") return null;
  const turn = value.lastIndexOf(LAST_TURN);
  if (!value.startsWith("\n\nHuman:") || turn === -1) return { prompt: null, response: value };
  return { prompt: value.slice("\n\nHuman:".length, turn).trim(), response: value.slice(turn + LAST_TURN.length).trim() };
}
