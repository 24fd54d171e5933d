// What is asked of the table of episodes; every filter stands in the address.
import { answer, api } from "../../api/client";
import type { components } from "../../api/schema";
import { go, withQuery } from "../../app/address";
import { useMe } from "../../app/me";
import { Named } from "../../ui/named";
import { type Resource, Shown, useResource } from "../../ui/resource";
import { FURTHER, askOf } from "./ask";
import { VersionForm } from "./version_form";

export type Places = components["schemas"]["PlaceList"];
type Choice = readonly [value: string, text: string];

const TITLES: Readonly<Record<string, string>> = { task: "Task", robot: "Robot", producer: "Producer", model: "Model version", cell: "Cell" };

export function Filters({ query, places }: { query: URLSearchParams; places: Resource<Places> }) {
  const me = useMe();
  const chosen = places.data?.places.find((one) => one.key === query.get("place"));
  const words = (...values: string[]): Choice[] => values.map((value) => [value, value.replace("_", " ")]);
  return (
    <>
      <form class="bar" onSubmit={(event) => event.preventDefault()}>
        <label>Words<input id="words" type="search" value={query.get("text") ?? ""} onInput={set("text")} maxLength={200} /></label>
        <Select query={query} name="place" title="Set" values={(places.data?.places ?? []).map((one) => [one.key, `${one.name} (${one.episodes})`])} />
        <Select query={query} name="kind" title="Kind" values={words("set", "edit", "recordings", "audit")} />
        <Select query={query} name="outcome" title="Outcome" values={words("solved", "failed", "unknown")} />
        <Select query={query} name="findings" title="Findings" values={words("some", "none", "unknown")} />
        <Select query={query} name="choice" title="Chosen" values={words("included", "left_out", "open")} />
        {me.may("operate") && <button type="button" onClick={() => void answer(api.POST("/api/places/read")).then(places.again)}>Read again</button>}
      </form>
      <Further query={query} />
      {chosen?.problem && <p class="failure" role="alert">{chosen.name} cannot be read: {chosen.problem}</p>}
      {chosen && (chosen.kind === "set" || chosen.kind === "edit") && <Named><VersionForm place={chosen.key} name={chosen.name} done={places.again} /></Named>}
    </>
  );
}

function set(name: string): (event: Event) => void {
  return (event) => go(withQuery({ [name]: (event.currentTarget as HTMLInputElement).value }), true);
}

function Select({ query, name, title, values }: { query: URLSearchParams; name: string; title: string; values: readonly Choice[] }) {
  const asked = query.get(name) ?? "";
  const isListed = asked === "" || values.some(([value]) => value === asked);
  return <label>{title}<select value={asked} onChange={set(name)}><option value="">any</option>{!isListed && <option value={asked}>{asked}</option>}{values.map(([value, text]) => <option key={value} value={value}>{text}</option>)}</select></label>;
}

/** Columns with the values that the table has now, and the length. They are asked for when they are opened. */
function Further({ query }: { query: URLSearchParams }) {
  const isAsked = FURTHER.some((name) => query.get(name));
  const isOpen = isAsked || query.get("more") === "true";
  const toggled = (event: Event) => {
    const now = (event.currentTarget as HTMLDetailsElement).open;
    if (now !== isOpen) go(withQuery({ more: now ? "true" : "", ...(now ? {} : Object.fromEntries(FURTHER.map((name) => [name, ""]))) }), true);
  };
  return (
    <details open={isOpen} onToggle={toggled}>
      <summary>More filters</summary>
      {isOpen && <FurtherFields query={query} />}
    </details>
  );
}

function FurtherFields({ query }: { query: URLSearchParams }) {
  const ask = askOf(query);
  const found = useResource(() => answer(api.GET("/api/episodes/values", { params: { query: ask as never } })), [JSON.stringify(ask)]);
  return (
    <Shown of={found} what="the values of the columns">
      {({ values }) => (
        <form class="bar" onSubmit={(event) => event.preventDefault()}>
          {Object.entries(TITLES).map(([name, title]) => <Select key={name} query={query} name={name} title={title} values={(values[name] ?? []).filter((one) => one.value).map((one) => [one.value, `${one.value} (${one.count})`])} />)}
          <label>Frames from<input type="number" min={0} value={query.get("min_frames") ?? ""} onInput={set("min_frames")} /></label>
          <label>up to<input type="number" min={0} value={query.get("max_frames") ?? ""} onInput={set("max_frames")} /></label>
        </form>
      )}
    </Shown>
  );
}
