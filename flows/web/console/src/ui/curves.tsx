// Curves over steps or seconds, by uPlot. A table of the last values stands beside them for who does not see them.
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

export interface Line {
  name: string;
  y: readonly (number | null)[];
  /** Lower and upper limit, drawn as dashed lines. */
  limits?: readonly [number, number];
}

interface CurvesProps {
  title: string;
  x: readonly number[];
  lines: readonly Line[];
  height?: number;
}

const COLOURS = ["#0b86c2", "#d9622b", "#2f9e54", "#9b5fc0", "#b58900", "#c2407e", "#5a6b7a"];

export function Curves({ title, x, lines, height = 160 }: CurvesProps) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const shape = lines.map((line) => `${line.name}${line.limits ? "+" : ""}`).join();
  useEffect(() => {
    const shown = box.current;
    if (!shown) return;
    plot.current = new uPlot(options(lines, Math.max(shown.clientWidth, 100), height), table(x, lines), shown);
    const sized = new ResizeObserver(() => plot.current?.setSize({ width: Math.max(shown.clientWidth, 100), height }));
    sized.observe(shown);
    return () => {
      sized.disconnect();
      plot.current?.destroy();
      plot.current = null;
    };
  }, [shape, height]);
  useEffect(() => plot.current?.setData(table(x, lines)), [x, lines]);
  const last = lines.map((line) => `${line.name} ${line.y.findLast((value) => value !== null)?.toPrecision(4) ?? "none"}`).join(", ");
  return (
    <figure class="curve">
      <figcaption>{title} <span class="quiet">now: {last}</span></figcaption>
      <div ref={box} aria-hidden="true" />
    </figure>
  );
}

function table(x: readonly number[], lines: readonly Line[]): uPlot.AlignedData {
  const columns = lines.flatMap((line) => (line.limits ? [line.y, x.map(() => line.limits?.[0] ?? null), x.map(() => line.limits?.[1] ?? null)] : [line.y]));
  return [[...x], ...columns.map((one) => [...one])];
}

function options(lines: readonly Line[], width: number, height: number): uPlot.Options {
  const text = getComputedStyle(document.documentElement).getPropertyValue("color") || "gray";
  const series = lines.flatMap((line, index): uPlot.Series[] => {
    const stroke = COLOURS[index % COLOURS.length] ?? "gray";
    const own: uPlot.Series = { label: line.name, stroke, width: 1.5, spanGaps: true };
    const limit: uPlot.Series = { stroke, width: 1, dash: [4, 4], points: { show: false } };
    return line.limits ? [own, limit, { ...limit }] : [own];
  });
  const axis: uPlot.Axis = { stroke: text, grid: { stroke: "rgba(128,128,128,0.2)" }, ticks: { stroke: "rgba(128,128,128,0.3)" } };
  return { width, height, series: [{}, ...series], axes: [axis, { ...axis, size: 60 }], scales: { x: { time: false } }, legend: { show: false }, cursor: { drag: { x: false, y: false } } };
}
