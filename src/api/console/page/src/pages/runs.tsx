// The training runs that the server watches.

import type { JSX } from "preact";
import { get } from "../api";
import { Failure } from "../parts/basics";
import { usePolled } from "../hooks";

type Run = Record<string, unknown>;

/** Whether the server watches runs at all. */
export async function watchesRuns(): Promise<boolean> {
  try {
    await get("/v1/runs");
    return true;
  } catch {
    return false;
  }
}

export function Runs(): JSX.Element {
  const { value, problem } = usePolled(async (signal) => {
    const reply = await get<{ data?: Run[]; runs?: Run[] }>("/v1/runs", signal);
    return reply.data ?? reply.runs ?? [];
  }, 5000);
  const columns = [...new Set((value ?? []).flatMap((run) => Object.keys(run)))];
  return (
    <>
      <h1>Runs</h1>
      <Failure problem={problem} />
      {value?.length === 0 && <p>No run yet: a request that names a run and a step begins one.</p>}
      {value !== null && value.length > 0 && (
        <div class="scrolled" tabIndex={0} role="group" aria-label="Runs">
          <table>
            <thead>
              <tr>
                {columns.map((column) => (
                  <th key={column} scope="col">
                    {column.replaceAll("_", " ")}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {value.map((run, index) => (
                <tr key={index}>
                  {columns.map((column) => (
                    <td key={column}>{told(run[column])}</td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </>
  );
}

function told(value: unknown): string {
  return value === null || value === undefined ? "–" : typeof value === "object" ? JSON.stringify(value) : String(value);
}
