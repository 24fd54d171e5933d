import { answer, api } from "../../api/client";
import type { components } from "../../api/schema";
import { go } from "../../app/address";
import { Shown, useRefreshed, useResource } from "../../ui/resource";
import { type Column, Rows } from "../../ui/rows";
import { Empty } from "../../ui/states";

type CellRow = components["schemas"]["CellRow"];

const EVERY_MS = 2000;
const COLUMNS: readonly Column<CellRow>[] = [
  { name: "Cell", show: (row) => row.name },
  { name: "State", show: (row) => (row.problem ? <span class="bad">{row.problem}</span> : row.is_running ? row.mode : <span class="quiet">shown {row.silent_s.toFixed(0)} s ago</span>) },
  { name: "Why", show: (row) => row.reason },
  { name: "Task", show: (row) => row.task },
  { name: "Solved", show: (row) => `${row.successes} of ${row.finished}`, width: "7rem" },
  { name: "Model", show: (row) => row.model_version },
  { name: "Pen", show: (row) => row.pen, width: "8rem" },
];

export function CellsPage() {
  const cells = useResource(() => answer(api.GET("/api/cells")), []);
  useRefreshed(cells, EVERY_MS);
  return (
    <>
      <h1>Cells</h1>
      <Shown of={cells} what="cells">
        {({ cells: rows }) =>
          rows.length === 0 ? (
            <Empty what="No cell has shown itself in this home yet."><code>actwright workcell run --task drawer-close-v3 --url http://127.0.0.1:3000 --realtime</code> starts one.</Empty>
          ) : (
            <Rows label="Cells" rows={rows} columns={COLUMNS} keyOf={(row) => row.name} open={(row) => go(`/cells/${encodeURIComponent(row.name)}`)} />
          )
        }
      </Shown>
    </>
  );
}
