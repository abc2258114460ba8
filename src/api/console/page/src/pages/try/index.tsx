// Trying a model on texts of one's own.

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { Failure, Tabs } from "../../parts/basics";
import { useModels } from "../../hooks";
import { Candidates } from "./candidates";
import { Critique } from "./critique";
import { Steps } from "./steps";
import { Tokens } from "./tokens";

const TABS: ["candidates" | "tokens" | "steps" | "critique", string][] = [
  ["candidates", "Candidates"],
  ["tokens", "Token rewards"],
  ["steps", "Step rewards"],
  ["critique", "Critique"],
];

export function Try(): JSX.Element {
  const { value, problem } = useModels();
  const [tab, setTab] = useState(TABS[0]![0]);
  const models = value ?? [];
  return (
    <>
      <h1>Try</h1>
      <Failure problem={problem} />
      <Tabs label="What to try" tabs={TABS} current={tab} onChange={setTab} />
      {tab === "candidates" && <Candidates models={models} />}
      {tab === "tokens" && <Tokens models={models} />}
      {tab === "steps" && <Steps models={models} />}
      {tab === "critique" && <Critique models={models} />}
    </>
  );
}
