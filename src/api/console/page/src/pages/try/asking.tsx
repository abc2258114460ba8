// The form that tokens, steps and critiques have in common: a model, a prompt and one response.

import type { ComponentChildren, JSX } from "preact";
import { useState } from "preact/hooks";
import { Failure, Text } from "../../parts/basics";
import { ModelChoice, withModel } from "../../parts/rules";
import { useAction } from "../../hooks";
import type { Model } from "../../types";

export interface Dialogue {
  model: string;
  prompt: string;
  response: string;
}

export function Asking(props: { models: Model[]; prompt: string; response: string; button: string; hint: string; ask: (signal: AbortSignal, dialogue: Dialogue) => Promise<void>; children: ComponentChildren }): JSX.Element {
  const [written, setDialogue] = useState<Dialogue>({ model: "", prompt: props.prompt, response: props.response });
  const dialogue = withModel(written, props.models);
  const action = useAction(props.ask);
  return (
    <div class="columns">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          action.run(dialogue);
        }}
      >
        <p>{props.hint}</p>
        <ModelChoice models={props.models} value={dialogue.model} onChange={(model) => setDialogue({ ...dialogue, model })} />
        <Text label="Prompt" rows={2} value={dialogue.prompt} onInput={(prompt) => setDialogue({ ...dialogue, prompt })} />
        <Text label="Response" rows={6} value={dialogue.response} onInput={(response) => setDialogue({ ...dialogue, response })} />
        <p class="buttons">
          <button class="main" type="submit" disabled={dialogue.model === ""}>
            {props.button}
          </button>
          {action.busy && (
            <button type="button" onClick={action.stop}>
              Stop
            </button>
          )}
        </p>
        <Failure problem={action.problem} />
      </form>
      <section aria-label="Result" class="result">
        {props.children}
      </section>
    </div>
  );
}
