// A table of many rows: only those in sight are in the document. Up, down, Home, End and Enter work on it.
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

export interface Column<T> {
  name: string;
  show: (row: T) => ComponentChildren;
  /** A width as CSS has it; the rest is shared. */
  width?: string;
  /** The name of the order that a click on the head asks for. */
  order?: string;
}

interface RowsProps<T> {
  label: string;
  rows: readonly T[];
  columns: readonly Column<T>[];
  keyOf: (row: T) => string;
  open?: (row: T) => void;
  order?: string;
  onOrder?: (order: string) => void;
  /** Called with the first row in sight and the one after the last, for rows that are fetched in parts. */
  seen?: (first: number, end: number) => void;
}

const HEIGHT = 32;
const MORE = 10;

export function Rows<T>({ label, rows, columns, keyOf, open, order, onOrder, seen: onSeen }: RowsProps<T>) {
  const box = useRef<HTMLDivElement>(null);
  const [top, setTop] = useState(0);
  const [seen, setSeen] = useState(600);
  const [at, setAt] = useState(0);
  useEffect(() => {
    const shown = box.current;
    if (!shown) return;
    const sized = new ResizeObserver(() => setSeen(shown.clientHeight));
    sized.observe(shown);
    return () => sized.disconnect();
  }, []);
  const first = Math.max(0, Math.floor(top / HEIGHT) - MORE);
  const last = Math.min(rows.length, Math.ceil((top + seen) / HEIGHT) + MORE);
  useEffect(() => onSeen?.(first, last), [first, last, onSeen]);
  const grid = { gridTemplateColumns: columns.map((one) => one.width ?? "minmax(6rem, 1fr)").join(" ") };
  const move = (to: number) => {
    const next = Math.max(0, Math.min(rows.length - 1, to));
    setAt(next);
    const shown = box.current;
    if (!shown) return;
    if (next * HEIGHT < shown.scrollTop) shown.scrollTop = next * HEIGHT;
    if ((next + 2) * HEIGHT > shown.scrollTop + shown.clientHeight) shown.scrollTop = (next + 2) * HEIGHT - shown.clientHeight;
  };
  const pressed = (event: KeyboardEvent) => {
    const page = Math.max(1, Math.floor(seen / HEIGHT) - 2);
    const steps: Record<string, number> = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: rows.length - 1 };
    const to = steps[event.key];
    const row = rows[at];
    if (to !== undefined) move(to);
    else if (event.key === "Enter" && open && row !== undefined) open(row);
    else return;
    event.preventDefault();
  };
  return (
    <div class="rows" ref={box} role="grid" aria-label={label} aria-rowcount={rows.length + 1} tabIndex={0} onScroll={(event) => setTop(event.currentTarget.scrollTop)} onKeyDown={pressed}>
      <div class="row head" role="row" aria-rowindex={1} style={grid}>
        {columns.map((one) => (
          <span role="columnheader" key={one.name} aria-sort={one.order && order?.replace("-", "") === one.order ? (order.startsWith("-") ? "descending" : "ascending") : undefined}>
            {one.order && onOrder ? <button type="button" tabIndex={-1} onClick={() => onOrder(order === one.order ? `-${one.order}` : (one.order ?? ""))}>{one.name}</button> : one.name}
          </span>
        ))}
      </div>
      <div class="all" role="rowgroup" style={{ height: `${rows.length * HEIGHT}px` }}>
        {rows.slice(first, last).map((row, index) => (
          <div class="row" role="row" key={keyOf(row)} aria-rowindex={first + index + 2} aria-selected={first + index === at} style={{ ...grid, top: `${(first + index) * HEIGHT}px` }} onClick={() => { setAt(first + index); open?.(row); }}>
            {columns.map((one) => <span role="gridcell" key={one.name}>{one.show(row)}</span>)}
          </div>
        ))}
      </div>
    </div>
  );
}
