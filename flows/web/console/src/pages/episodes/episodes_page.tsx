// Every episode of every set, edit, recording and audit: found by words and values, opened by Enter.
import { useEffect } from "preact/hooks";
import { answer, api } from "../../api/client";
import { go, useAddress, withQuery } from "../../app/address";
import { useKeys } from "../../app/keys";
import { useMe } from "../../app/me";
import { Named } from "../../ui/named";
import { type Resource, useResource } from "../../ui/resource";
import { type Column, Rows } from "../../ui/rows";
import { Empty, Failure, Loading } from "../../ui/states";
import type { components } from "../../api/schema";
import { askOf, sortOf } from "./ask";
import { type EpisodeLine, type Row, useEpisodes } from "./table_rows";
import { VersionForm } from "./version_form";

type Places = components["schemas"]["PlaceList"];

const COLUMNS: readonly Column<Row>[] = [
  { name: "Set", order: "set", show: of((row) => row.set), width: "9rem" },
  { name: "Episode", order: "episode", show: of((row) => row.episode) },
  { name: "Task", order: "task", show: of((row) => row.task) },
  { name: "Outcome", order: "outcome", show: of((row) => <Outcome row={row} />), width: "6rem" },
  { name: "Causes", show: of((row) => row.causes.join(", ").replaceAll("_", " ")), width: "8rem" },
  { name: "Producer", order: "producer", show: of((row) => row.model || row.producer) },
  { name: "Robot", order: "robot", show: of((row) => row.robot || row.cell), width: "8rem" },
  { name: "Frames", order: "length", show: of((row) => row.length), width: "5rem" },
  { name: "Findings", order: "findings", show: of((row) => (row.findings < 0 ? "" : row.findings)), width: "5.5rem" },
  { name: "Chosen", show: of((row) => row.choice.replace("_", " ")), width: "6rem" },
];

export function EpisodesPage() {
  const query = useAddress().searchParams;
  const found = useEpisodes(askOf(query));
  const places = useResource(() => answer(api.GET("/api/places")), []);
  useWhileReading(places, found.again);
  useKeys([{ key: "/", does: "look for words", run: () => document.querySelector<HTMLInputElement>("#words")?.focus() }]);
  return (
    <>
      <h1>Episodes</h1>
      <Filters query={query} places={places} />
      {found.failure ? <Failure reason={found.failure} again={found.again} /> : found.total === null ? <Loading what="episodes" /> : found.total === 0 ? (
        <Empty what={places.data?.is_reading ? "What is on this machine is being read." : "No episode is as you ask."}>
          <code>actwright episodes list --place FOLDER</code> adds a folder of recordings, audits or a data set.
        </Empty>
      ) : (
        <Rows label="Episodes" rows={found.rows} columns={COLUMNS} keyOf={(row) => ("pending" in row ? `${row.pending}` : `${row.place} ${row.episode}`)} seen={found.seen} open={open} order={sortOf(query)} onOrder={(order) => go(withQuery({ sort: order }), true)} />
      )}
      <p class="quiet" role="status">{found.total ?? "..."} episodes in {places.data?.places.length ?? "..."} places{places.data?.is_reading ? "; reading what has changed" : ""}</p>
    </>
  );
}

function of(show: (row: EpisodeLine) => preact.ComponentChildren): (row: Row) => preact.ComponentChildren {
  return (row) => ("pending" in row ? "..." : show(row));
}

function open(row: Row): void {
  if (!("pending" in row)) go(`/episodes/${row.place}/${encodeURIComponent(row.episode)}`);
}

/** While the console reads places, ask again every two seconds, and once more when it has finished. */
function useWhileReading(places: Resource<Places>, again: () => void): void {
  const isReading = places.data?.is_reading ?? false;
  useEffect(() => {
    if (!isReading) return;
    const timer = setInterval(places.again, 2000);
    return () => {
      clearInterval(timer);
      again();
    };
  }, [isReading]);
}

function Filters({ query, places }: { query: URLSearchParams; places: Resource<Places> }) {
  const me = useMe();
  const chosen = places.data?.places.find((one) => one.key === query.get("place"));
  const set = (name: string) => (event: Event) => go(withQuery({ [name]: (event.currentTarget as HTMLInputElement).value }), true);
  const select = (name: string, title: string, values: readonly (readonly [string, string])[]) => (
    <label>{title}<select value={query.get(name) ?? ""} onChange={set(name)}><option value="">any</option>{values.map(([value, text]) => <option key={value} value={value}>{text}</option>)}</select></label>
  );
  const words = (...values: string[]) => values.map((value) => [value, value.replace("_", " ")] as const);
  return (
    <>
      <form class="bar" onSubmit={(event) => event.preventDefault()}>
        <label>Words<input id="words" type="search" value={query.get("text") ?? ""} onInput={set("text")} maxLength={200} /></label>
        {select("place", "Set", (places.data?.places ?? []).map((one) => [one.key, `${one.name} (${one.episodes})`] as const))}
        {select("kind", "Kind", words("set", "edit", "recordings", "audit"))}
        {select("outcome", "Outcome", words("solved", "failed", "unknown"))}
        {select("findings", "Findings", words("some", "none", "unknown"))}
        {select("choice", "Chosen", words("included", "left_out", "open"))}
        {me.may("operate") && <button type="button" onClick={() => void answer(api.POST("/api/places/read")).then(places.again)}>Read again</button>}
      </form>
      {chosen?.problem && <p class="failure" role="alert">{chosen.name} cannot be read: {chosen.problem}</p>}
      {chosen && (chosen.kind === "set" || chosen.kind === "edit") && <Named><VersionForm place={chosen.key} name={chosen.name} done={places.again} /></Named>}
    </>
  );
}

export function Outcome({ row }: { row: { outcome: string; ending?: string } }) {
  const style = { solved: "good", failed: "bad" }[row.outcome] ?? "quiet";
  return <span class={style} title={row.ending}>{row.outcome}</span>;
}
