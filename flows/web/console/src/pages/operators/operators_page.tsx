import { answer, api } from "../../api/client";
import type { components } from "../../api/schema";
import { useAddress, withQuery } from "../../app/address";
import { Link } from "../../ui/link";
import { Shown, useResource } from "../../ui/resource";
import { type Column, Rows } from "../../ui/rows";
import { Empty, Failure } from "../../ui/states";

type OperatorLine = components["schemas"]["OperatorLine"];

const COLUMNS: readonly Column<OperatorLine>[] = [
  { name: "Line", show: (row) => row.number, width: "5rem" },
  { name: "When", show: (row) => new Date(row.at).toLocaleString(), width: "13rem" },
  { name: "Who", show: (row) => `${row.person} (${row.role})`, width: "12rem" },
  { name: "Order", show: (row) => row.order },
  { name: "Asked", show: (row) => row.asked },
  { name: "What came of it", show: (row) => (row.refused ? <span class="bad">{row.refused}</span> : row.answer) },
];

export function OperatorsPage() {
  const before = Math.trunc(Number(useAddress().searchParams.get("before") ?? 0)) || 0;
  const log = useResource(() => answer(api.GET("/api/operators", { params: { query: { before } } })), [before]);
  return (
    <>
      <h1>Operators</h1>
      <Shown of={log} what="the log">
        {({ lines, count, head, problem }) =>
          problem ? (
            <Failure reason={problem} again={log.again} />
          ) : count === 0 ? (
            <Empty what="No person has ordered anything yet.">What people draw, edit, hold and stop is listed here.</Empty>
          ) : (
            <>
              <p class="quiet">
                {count} lines, the chain holds; last hash <code>{head.slice(0, 16)}</code>. {before > 0 && <Link to={withQuery({ before: "" })}>The newest</Link>}{" "}
                {(lines.at(-1)?.number ?? 1) > 1 && <Link to={withQuery({ before: String(lines.at(-1)?.number) })}>Older ones</Link>}
              </p>
              <Rows key={before} label="Orders" rows={lines} columns={COLUMNS} keyOf={(row) => String(row.number)} />
            </>
          )
        }
      </Shown>
    </>
  );
}
