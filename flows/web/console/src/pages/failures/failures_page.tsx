// The queue of what went wrong: groups of moments that are alike, each with its clip, sorted by one cause or one decision for many.
import { useState } from "preact/hooks";
import { answer, api } from "../../api/client";
import type { components } from "../../api/schema";
import { go, useAddress, withQuery } from "../../app/address";
import { useKeys } from "../../app/keys";
import { Link } from "../../ui/link";
import { Named } from "../../ui/named";
import { Shown, useResource } from "../../ui/resource";
import { Empty } from "../../ui/states";
import { type Changes, useCauses } from "../episodes/stating";

type Queue = components["schemas"]["FailureQueue"];
type Row = components["schemas"]["FailureRow"];

const SHOWN = 20; // of a group, until a person asks for all
const MOST_AT_ONCE = 1000; // episodes that the console takes in one order

export function FailuresPage() {
  const query = useAddress().searchParams;
  const ask = { kind: query.get("kind") ?? "", text: query.get("text") ?? "", sorted: query.get("sorted") === "true" };
  const queue = useResource(() => answer(api.GET("/api/failures", { params: { query: ask } })), [ask.kind, ask.text, ask.sorted]);
  return (
    <>
      <h1>Failures</h1>
      <Shown of={queue} what="the queue">{(found) => <Groups queue={found} ask={ask} again={queue.again} />}</Shown>
    </>
  );
}

function Groups({ queue, ask, again }: { queue: Queue; ask: { kind: string; text: string; sorted: boolean }; again: () => void }) {
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set());
  const groups = [...new Set(queue.rows.map((one) => one.group))];
  const done = () => { setChosen(new Set()); again(); };
  const choose = (rows: readonly Row[], isOn: boolean) => {
    const next = new Set(chosen);
    for (const row of rows) isOn ? next.add(row.key) : next.delete(row.key);
    setChosen(next);
  };
  useKeys([
    { key: "j", does: "the next moment; the space bar chooses it", run: () => step(1) },
    { key: "k", does: "the moment before", run: () => step(-1) },
    { key: "/", does: "look for words", run: () => document.querySelector<HTMLInputElement>("#words")?.focus() },
  ]);
  return (
    <>
      <p>
        <b>{queue.dwell.open}</b> wait{hours("the median one", queue.dwell.median_open_h)}{hours("the oldest", queue.dwell.oldest_open_h)}; <b>{queue.dwell.sorted}</b> sorted{hours("after", queue.dwell.median_sorted_h)}
      </p>
      <form class="bar" onSubmit={(event) => event.preventDefault()}>
        <label>Kind<select value={ask.kind} onChange={(event) => go(withQuery({ kind: event.currentTarget.value }), true)}><option value="">any</option>{Object.entries(queue.kinds).map(([kind, count]) => <option key={kind} value={kind}>{kind} ({count})</option>)}</select></label>
        <label>Words<input id="words" type="search" value={ask.text} onInput={(event) => go(withQuery({ text: event.currentTarget.value }), true)} maxLength={200} /></label>
        <label class="check"><input type="checkbox" checked={ask.sorted} onChange={() => go(withQuery({ sorted: ask.sorted ? "" : "true" }), true)} /> also what was sorted</label>
      </form>
      <Named><Bulk rows={queue.rows.filter((one) => chosen.has(one.key))} done={done} /></Named>
      {groups.length === 0 && <Empty what="Nothing waits."><code>actwright workcell run --audit FOLDER</code> notes what a cell does; failed episodes of every set are found here, too.</Empty>}
      {groups.map((group) => <Group key={group} title={queue.titles[group] ?? ""} rows={queue.rows.filter((one) => one.group === group)} chosen={chosen} choose={choose} />)}
      {queue.left_off > 0 && <p class="quiet">{queue.left_off} more are not shown; ask for one kind or a word.</p>}
    </>
  );
}

function Group({ title, rows, chosen, choose }: { title: string; rows: readonly Row[]; chosen: ReadonlySet<string>; choose: (rows: readonly Row[], isOn: boolean) => void }) {
  const [showsAll, setShowsAll] = useState(false);
  const isAll = rows.every((one) => chosen.has(one.key));
  return (
    <section class="group" aria-label={title}>
      <h2><label class="check"><input type="checkbox" checked={isAll} onChange={() => choose(rows, !isAll)} /> {rows.length} x {title}</label></h2>
      <ul class="clips">
        {(showsAll ? rows : rows.slice(0, SHOWN)).map((one) => (
          <li key={one.key} class={one.is_sorted ? "undone" : ""}>
            <input type="checkbox" aria-label={`choose ${one.episode} at ${one.start_s.toFixed(1)} s`} checked={chosen.has(one.key)} onChange={() => choose([one], !chosen.has(one.key))} />
            <Link to={`/episodes/${one.place}/${encodeURIComponent(one.episode)}?s=${one.clip_s.toFixed(2)}`}>{one.episode} at {one.start_s.toFixed(1)} s</Link>
            <span class="quiet"> {one.set} {one.model} {one.cell} {one.waits_h !== null && `waits ${span(one.waits_h)}`} {one.causes.join(", ").replaceAll("_", " ")}{one.count > 1 && ` ${one.count} times`}</span>
            {one.recorded && <> <Link to={`/episodes/${one.recorded}/${encodeURIComponent(one.episode)}?s=${one.clip_s.toFixed(2)}`}>its recording</Link></>}
          </li>
        ))}
      </ul>
      {rows.length > SHOWN && !showsAll && <button type="button" onClick={() => setShowsAll(true)}>Show all {rows.length}</button>}
    </section>
  );
}

/** Move the focus to another moment of the page. */
function step(by: number): void {
  const moments = [...document.querySelectorAll<HTMLInputElement>(".clips input")];
  const at = moments.findIndex((one) => one === document.activeElement);
  moments[at < 0 ? 0 : Math.max(0, Math.min(moments.length - 1, at + by))]?.focus();
}

/** One decision for all that are chosen, place by place. */
function Bulk({ rows, done }: { rows: readonly Row[]; done: () => void }) {
  const causes = useCauses();
  const [failure, setFailure] = useState("");
  const state = async (changes: Changes, where: (row: Row) => string = (row) => row.place) => {
    const places = new Map<string, Set<string>>();
    for (const row of rows) places.set(where(row), (places.get(where(row)) ?? new Set()).add(row.episode));
    for (const [place, named] of places) {
      const episodes = [...named];
      for (let first = 0; first < episodes.length; first += MOST_AT_ONCE) {
        const made = await answer(api.POST("/api/revisions", { body: { place, episodes: episodes.slice(first, first + MOST_AT_ONCE), changes: changes as never } }));
        if ("reason" in made) return setFailure(made.reason);
      }
    }
    setFailure("");
    done();
  };
  const include = () => void state({ include: { included: true } }, (row) => row.recorded || row.place);
  const leaveOut = () => void state({ include: { included: false } });
  const dismiss = () => void state({ dismiss: {} });
  useKeys(rows.length === 0 ? [] : [
    { key: "c", does: "why the chosen ones failed", run: () => document.querySelector<HTMLSelectElement>(".bulk select")?.focus() },
    { key: "i", does: "the chosen ones into the next data set", run: include },
    { key: "x", does: "leave the chosen ones out", run: leaveOut },
    { key: "0", does: "the chosen ones need nothing", run: dismiss },
  ]);
  return (
    <div class="bar bulk" role="group" aria-label="For all that are chosen">
      <span>{rows.length} chosen</span>
      <select aria-label="Why it failed" disabled={rows.length === 0} value="" onChange={(event) => void state({ causes: { causes: [event.currentTarget.value] } })}>
        <option value="">because of ...</option>
        {causes.filter((one) => one.name !== "other").map((one) => <option key={one.name} value={one.name} title={one.means}>{one.name.replaceAll("_", " ")}</option>)}
      </select>
      <button type="button" disabled={rows.length === 0} onClick={include} title="i">Into the next data set</button>
      <button type="button" disabled={rows.length === 0} onClick={leaveOut} title="x">Leave out</button>
      <button type="button" disabled={rows.length === 0} onClick={dismiss} title="0">Needs nothing</button>
      {failure && <span class="failure" role="alert">{failure}</span>}
    </div>
  );
}

function hours(what: string, value: number | null): string {
  return value === null ? "" : `, ${what} ${span(value)}`;
}

function span(value: number): string {
  return value < 1 ? `${Math.round(60 * value)} min` : value < 48 ? `${value.toFixed(1)} h` : `${(value / 24).toFixed(1)} days`;
}
