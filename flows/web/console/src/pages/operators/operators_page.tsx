import { answer, api } from "../../api/client";
import type { components } from "../../api/schema";
import { Shown, useResource } from "../../ui/resource";
import { type Column, Rows } from "../../ui/rows";
import { Empty, Failure } from "../../ui/states";

type OperatorLine = components["schemas"]["OperatorLine"];

const COLUMNS: readonly Column<OperatorLine>[] = [
  { name: "When", show: (row) => new Date(row.at).toLocaleString(), width: "13rem" },
  { name: "Who", show: (row) => `${row.person} (${row.role})`, width: "12rem" },
  { name: "Order", show: (row) => row.order },
  { name: "Asked", show: (row) => row.asked },
  { name: "What came of it", show: (row) => (row.refused ? <span class="bad">{row.refused}</span> : row.answer) },
];

export function OperatorsPage() {
  const log = useResource(() => answer(api.GET("/api/operators")), []);
  return (
    <>
      <h1>Operators</h1>
      <Shown of={log} what="the log">
        {({ lines, count, head, problem }) =>
          problem ? (
            <Failure reason={problem} again={log.again} />
          ) : lines.length === 0 ? (
            <Empty what="No person has ordered anything yet.">What people draw, edit, hold and stop is listed here.</Empty>
          ) : (
            <>
              <p class="quiet">{count} lines, the chain holds; last hash <code>{head.slice(0, 16)}</code></p>
              <Rows label="Orders" rows={lines} columns={COLUMNS} keyOf={(row) => `${row.at}-${row.order}-${row.person}`} />
            </>
          )
        }
      </Shown>
    </>
  );
}
