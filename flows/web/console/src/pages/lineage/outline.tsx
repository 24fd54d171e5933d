// The graph from one thing as nested lists: for the keyboard, and for readers that do not see the picture.
import type { ComponentChildren } from "preact";
import type { components } from "../../api/schema";
import { Link } from "../../ui/link";
import { lineageOf } from "../../app/address";
import type { Thing } from "./lineage_page";

type Start = components["schemas"]["LineageStart"];
type Line = components["schemas"]["OutlineLine"];
type Things = ReadonlyMap<string, Thing>;

export function Outline({ start, things }: { start: Start; things: Things }) {
  const thing = things.get(start.id);
  return (
    <section aria-label={thing?.words ?? start.id}>
      <h2>{thing?.kind} {thing?.name} <PageOf thing={thing} /></h2>
      <dl class="facts">{Object.entries(thing?.facts ?? {}).map(([name, value]) => [<dt key={`${name}-t`}>{name}</dt>, <dd key={`${name}-d`}>{value}</dd>])}</dl>
      <div class="columns">
        <Side title="Made of" lines={start.made_of} things={things} />
        <Side title="Made with it" lines={start.made_with} things={things} />
      </div>
    </section>
  );
}

function PageOf({ thing }: { thing: Thing | undefined }) {
  if (thing?.kind === "version") return <Link to={`/models/${thing.name.split("/").map(encodeURIComponent).join("/")}`}>its page</Link>;
  if (thing?.kind === "run") return <Link to={`/runs?of=${encodeURIComponent(thing.name)}`}>its curves</Link>;
  if (thing?.kind === "cell") return <Link to="/fleet/ran">what ran where</Link>;
  return null;
}

function Side({ title, lines, things }: { title: string; lines: readonly Line[]; things: Things }) {
  return (
    <div>
      <h3>{title}</h3>
      {lines.length === 0 ? <p class="quiet">Nothing is on record.</p> : nested(lines, 0, 1, things)[0]}
    </div>
  );
}

/** The lines from `at` on that are at `depth` or below it, as one list; and the place after them. */
function nested(lines: readonly Line[], at: number, depth: number, things: Things): [ComponentChildren, number] {
  const items: ComponentChildren[] = [];
  let next = at;
  for (let line = lines[next]; line && line.depth === depth; line = lines[next]) {
    const here = next;
    let below: ComponentChildren = null;
    next += 1;
    if ((lines[next]?.depth ?? 0) > depth) [below, next] = nested(lines, next, depth + 1, things);
    items.push(
      <li key={here}>
        <Link to={lineageOf(line.id)}>{things.get(line.id)?.words ?? line.id}</Link> <span class="quiet">{line.how}{line.is_again && ", as above"}</span>
        {below}
      </li>,
    );
  }
  return [<ul>{items}</ul>, next];
}
