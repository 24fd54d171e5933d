// Every episode of every set, edit, recording and audit: found by words and values, opened by Enter.
import { useEffect } from "preact/hooks";
import { answer, api } from "../../api/client";
import { go, useAddress, withQuery } from "../../app/address";
import { useKeys } from "../../app/keys";
import { type Resource, useResource } from "../../ui/resource";
import { type Column, Rows } from "../../ui/rows";
import { Empty, Failure, Loading } from "../../ui/states";
import { askOf, sortOf } from "./ask";
import { Filters, type Places } from "./filters";
import { type EpisodeLine, type Row, useEpisodes } from "./table_rows";

const COLUMNS: readonly Column<Row>[] = [
  { name: "Set", order: "set", show: of((row) => row.set), width: "9rem" },
  { name: "Episode", order: "episode", show: of((row) => row.episode) },
  { name: "Task", order: "task", show: of((row) => row.task) },
  { name: "Outcome", order: "outcome", show: of((row) => <Outcome row={row} />), width: "6rem" },
  { name: "Causes", show: of((row) => row.causes.join(", ").replaceAll("_", " ")), width: "8rem" },
  { name: "Producer", order: "producer", show: of((row) => row.producer) },
  { name: "Model", order: "model", show: of((row) => row.model) },
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

export function Outcome({ row }: { row: { outcome: string; ending?: string } }) {
  const style = { solved: "good", failed: "bad" }[row.outcome] ?? "quiet";
  return <span class={style} title={row.ending}>{row.outcome}</span>;
}
