// What a person states of an episode: kept or not, outcome, causes, words; and everything that was stated, with undo.
import { useState } from "preact/hooks";
import { answer, api } from "../../api/client";
import type { components } from "../../api/schema";
import { type Key, useKeys } from "../../app/keys";
import { useMe } from "../../app/me";
import { useResource } from "../../ui/resource";

type Page = components["schemas"]["EpisodePage"];
export type Changes = Record<string, Record<string, unknown>>;

export interface Stating {
  state: (changes: Changes) => Promise<void>;
  undo: (revision: number) => Promise<void>;
  failure: string;
}

/** Stating something of one episode; `done` is called when it is on the disk. */
export function useStating(place: string, episodes: readonly string[], done: () => void): Stating {
  const [failure, setFailure] = useState("");
  const told = (made: { data: unknown } | { reason: string }) => {
    setFailure("reason" in made ? made.reason : "");
    if ("data" in made) done();
  };
  return {
    failure,
    state: async (changes) => told(await answer(api.POST("/api/revisions", { body: { place, episodes: [...episodes], changes: changes as never } }))),
    undo: async (revision) => told(await answer(api.POST("/api/revisions/undo", { body: { place, revision } }))),
  };
}

export function useCauses(): readonly components["schemas"]["CauseRow"][] {
  return useResource(() => answer(api.GET("/api/causes")), []).data?.causes ?? [];
}

export function StatePanel({ page, frame, stating }: { page: Page; frame: number; stating: Stating }) {
  const causes = useCauses();
  const last = [...page.revisions].reverse().find((one) => !one.is_undone && one.kind !== "undo");
  const toggle = (name: string) => page.line.causes.includes(name) ? page.line.causes.filter((one) => one !== name) : [...page.line.causes, name];
  const tag = (name: string) => void stating.state({ causes: { causes: toggle(name), note: page.note } });
  const keys: Key[] = [
    { key: "i", does: "include", run: () => void stating.state({ include: { included: true } }) },
    { key: "x", does: "leave out", run: () => void stating.state({ include: { included: false } }) },
    { key: "s", does: "it was solved", run: () => void stating.state({ outcome: { outcome: "solved" } }) },
    { key: "f", does: "it failed", run: () => void stating.state({ outcome: { outcome: "failed" } }) },
    { key: "[", does: "keep from this frame on", run: () => void stating.state({ trim: { first: frame, end: page.end } }) },
    { key: "]", does: "keep up to this frame", run: () => void stating.state({ trim: { first: page.first, end: frame + 1 } }) },
    { key: "u", does: "undo what was stated last", run: () => void (last && stating.undo(last.number)) },
    ...causes.slice(0, 9).map((one, n) => ({ key: String(n + 1), does: `cause: ${one.name.replaceAll("_", " ")}`, run: () => tag(one.name) })),
  ];
  useKeys(keys);
  return (
    <section aria-label="State">
      <div class="bar">
        {keys.slice(0, 7).map((one) => <button type="button" key={one.key} onClick={one.run} title={one.key}>{one.does}</button>)}
      </div>
      <fieldset class="causes">
        <legend>Why it failed</legend>
        {causes.filter((one) => one.name !== "other").map((one, n) => (
          <button type="button" key={one.name} aria-pressed={page.line.causes.includes(one.name)} title={one.means} onClick={() => tag(one.name)}>{n < 9 ? `${n + 1} ` : ""}{one.name.replaceAll("_", " ")}</button>
        ))}
      </fieldset>
      <Instruction page={page} stating={stating} />
      {stating.failure && <p class="failure" role="alert">{stating.failure}</p>}
    </section>
  );
}

function Instruction({ page, stating }: { page: Page; stating: Stating }) {
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    const instruction = String(new FormData(event.currentTarget as HTMLFormElement).get("instruction") ?? "");
    void stating.state({ instruction: { instruction } });
  };
  return (
    <form class="bar" onSubmit={submit} key={page.line.instruction}>
      <label>Instruction<input name="instruction" defaultValue={page.line.instruction} required maxLength={300} size={40} /></label>
      <button type="submit">Correct it</button>
    </form>
  );
}

export function RevisionList({ page, stating }: { page: Page; stating: Stating }) {
  const me = useMe();
  if (page.revisions.length === 0) return <p class="quiet">No one has stated anything of this episode.</p>;
  return (
    <table>
      <caption class="quiet">What was stated, oldest first</caption>
      <thead><tr><th scope="col">When</th><th scope="col">Who</th><th scope="col">What</th><th scope="col"><span class="quiet">Undo</span></th></tr></thead>
      <tbody>
        {page.revisions.map((one) => (
          <tr key={one.number} class={one.is_undone ? "undone" : ""}>
            <td>{one.at.slice(0, 19).replace("T", " ")}</td>
            <td>{one.author}</td>
            <td>{one.kind}: {Object.entries(one.change).filter(([, value]) => value !== "").map(([name, value]) => `${name} ${JSON.stringify(value)}`).join(", ")}{one.is_undone && " (undone)"}</td>
            <td>{me.may("operate") && me.has_session && !one.is_undone && <button type="button" onClick={() => void stating.undo(one.number)}>Undo<span class="quiet"> {one.number}</span></button>}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
