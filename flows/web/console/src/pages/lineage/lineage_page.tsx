// What something was made of and what was made with it, down to the robots: a picture, and the same as nested lists.
import { useRef } from "preact/hooks";
import { answer, api } from "../../api/client";
import type { components } from "../../api/schema";
import { go, lineageOf, useAddress, withQuery } from "../../app/address";
import { useKeys } from "../../app/keys";
import { Shown, useResource } from "../../ui/resource";
import { type Column, Rows } from "../../ui/rows";
import { Empty } from "../../ui/states";
import { Outline } from "./outline";
import { LineagePicture } from "./picture";

type Page = components["schemas"]["LineagePage"];
export type Thing = components["schemas"]["LineageThing"];

export function LineagePage() {
  const of = useAddress().searchParams.get("of") ?? "";
  const page = useResource(() => answer(api.GET("/api/lineage", { params: { query: { of } } })), [of]);
  return (
    <>
      <h1>Lineage</h1>
      <Search of={of} />
      <Shown of={page} what="what came from what">{(found) => (found.starts.length ? <Found page={found} /> : <Choices page={found} />)}</Shown>
    </>
  );
}

function Search({ of }: { of: string }) {
  const field = useRef<HTMLInputElement>(null);
  useKeys([{ key: "/", does: "name what to look for", run: () => field.current?.select() }]);
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    go(withQuery({ of: field.current?.value.trim() ?? "" }));
  };
  return (
    <form class="bar" onSubmit={submit}>
      <label>Of what: a model version, annotator, release or cell, or the first digits of anything<input key={of} ref={field} name="of" class="long" defaultValue={of} maxLength={400} /></label>
      <button type="submit" class="main">Show</button>
      {of && <button type="button" onClick={() => go(withQuery({ of: "" }))}>Everything</button>}
    </form>
  );
}

const COLUMNS: readonly Column<Thing>[] = [
  { name: "Kind", show: (row) => row.kind, width: "8rem" },
  { name: "Name", show: (row) => row.name },
  { name: "Known of it", show: (row) => Object.entries(row.facts).map(([name, value]) => `${name} ${value}`).join(", ") },
];

function Choices({ page }: { page: Page }) {
  if (page.things.length === 0) return <Empty what="Nothing was made here yet."><code>actwright run</code> records what a model is made of.</Empty>;
  return (
    <>
      <Notes notes={page.notes} />
      <Rows label="What there is" rows={page.things} columns={COLUMNS} keyOf={(row) => row.id} open={(row) => go(lineageOf(row.id))} />
    </>
  );
}

function Found({ page }: { page: Page }) {
  const things = new Map(page.things.map((one) => [one.id, one]));
  return (
    <>
      <p role="status"><b>{page.told}</b></p>
      <Notes notes={page.notes} />
      <LineagePicture page={page} />
      {page.starts.map((start) => <Outline key={start.id} start={start} things={things} />)}
      {page.more_starts > 0 && <p class="warn">{page.more_starts} further things are called so; the picture has all of them. Give more digits for their lists.</p>}
    </>
  );
}

function Notes({ notes }: { notes: readonly string[] }) {
  return <>{notes.map((note) => <p key={note} class="warn">{note}</p>)}</>;
}

