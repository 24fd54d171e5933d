// Cells by site: what each reported, what is proposed to it, and how long ago it was heard.
import { useAddress, withQuery } from "../../app/address";
import { Link } from "../../ui/link";
import { type Column, Rows } from "../../ui/rows";
import { Empty } from "../../ui/states";
import { type Cell, type Named, type State, time } from "./names";

export function Cells({ state, named }: { state: State; named: Named }) {
  const site = useAddress().searchParams.get("site") ?? "";
  const rows = state.cells.filter((one) => !site || one.site === site).sort((one, other) => one.site.localeCompare(other.site) || one.name.localeCompare(other.name));
  if (state.cells.length === 0) return <Empty what="No cell is enrolled yet."><code>actwright fleet enrol cell-4 --site lab --key cell-4.pub.pem</code> lets one report (docs/fleet.md).</Empty>;
  return (
    <section aria-label="Cells">
      <h2>Cells</h2>
      <Sites cells={state.cells} chosen={site} />
      <Rows label="Cells" rows={rows} columns={columns(named)} keyOf={(row) => row.name} />
    </section>
  );
}

function Sites({ cells, chosen }: { cells: readonly Cell[]; chosen: string }) {
  const sites = [...new Set(cells.map((one) => one.site))].sort();
  return (
    <p>
      {sites.map((site) => {
        const here = cells.filter((one) => one.site === site);
        const settled = here.filter((one) => !one.is_stale && isSettled(one)).length;
        const stale = here.filter((one) => one.is_stale).length;
        return <span key={site} class="site"><Link to={withQuery({ site: site === chosen ? "" : site })} current={site === chosen}>{site}</Link>: {settled} of {here.length} report what is proposed{stale > 0 && <span class="warn">, {stale} stale</span>}. </span>;
      })}
    </p>
  );
}

function isSettled(cell: Cell): boolean {
  return cell.running !== "" && (cell.proposed === "" || cell.proposed === cell.running);
}

function columns(named: Named): readonly Column<Cell>[] {
  return [
    { name: "Site", show: (row) => row.site, width: "8rem" },
    { name: "Cell", show: (row) => row.name, width: "10rem" },
    { name: "Reported", show: (row) => named(row.running) },
    { name: "Desired", show: (row) => (row.proposed === "" ? <span class="quiet">what it runs</span> : row.proposed === row.running ? named(row.proposed) : <b>{named(row.proposed)}</b>) },
    { name: "In shadow", show: (row) => row.shadow && <span title={`${row.shadowed} decisions compared`}>{named(row.shadow)}, {row.shadowed}</span> },
    { name: "State", show: (row) => <CellState cell={row} /> },
    { name: "Heard", show: (row) => <span class={row.is_stale ? "warn" : undefined}>{row.is_stale ? "stale since " : ""}{time(row.seen_at_s)}</span>, width: "16rem" },
  ];
}

function CellState({ cell }: { cell: Cell }) {
  const notes = [cell.offline ? "without the controller" : "", cell.in_episode ? "in an episode" : "", cell.phase, cell.override ? `override by ${cell.override}` : ""].filter(Boolean);
  return <span title={cell.error || cell.reason}>{cell.error && <span class="bad">{cell.error} </span>}{notes.join(", ")}</span>;
}
