// One vector over the time of the episode, with marks and the place of the player. A click goes to that time.
import { useEffect, useRef } from "preact/hooks";
import { type Mark, type Series, placeAt } from "./signals";

interface ChartProps {
  name: string;
  series: Series;
  marks: readonly Mark[];
  end: number;
  at: number;
  seek: (seconds: number) => void;
}

const HEIGHT = 110;
const COLOURS = ["#0b86c2", "#d9622b", "#2f9e54", "#9b5fc0", "#b58900", "#c2407e", "#5a6b7a", "#008a8a"];
const MARKS: Record<string, string> = { hold: "rgba(200,60,50,0.3)", refusal: "rgba(200,60,50,0.8)", clip: "rgba(220,150,40,0.4)", person: "rgba(60,140,220,0.3)" };

export function SignalChart({ name, series, marks, end, at, seek }: ChartProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const width = series.names.length;
  const place = placeAt(series.times, at);
  useEffect(() => {
    const shown = canvas.current;
    const draw = shown?.getContext("2d");
    if (!shown || !draw) return;
    shown.width = shown.clientWidth * devicePixelRatio;
    shown.height = HEIGHT * devicePixelRatio;
    draw.scale(devicePixelRatio, devicePixelRatio);
    const [low, high] = range(series.values);
    const x = (seconds: number) => (end > 0 ? (seconds / end) * shown.clientWidth : 0);
    const y = (value: number) => HEIGHT - 4 - ((value - low) / (high - low || 1)) * (HEIGHT - 8);
    for (const mark of marks) {
      draw.fillStyle = MARKS[mark.kind] ?? "rgba(128,128,128,0.3)";
      draw.fillRect(x(mark.start_s), 0, Math.max(2, x(mark.end_s) - x(mark.start_s)), HEIGHT);
    }
    const step = Math.max(1, Math.floor(series.times.length / (2 * shown.clientWidth)));
    for (let d = 0; d < width; d += 1) {
      draw.strokeStyle = COLOURS[d % COLOURS.length] ?? "gray";
      draw.beginPath();
      for (let n = 0; n < series.times.length; n += step) draw.lineTo(x(series.times[n] ?? 0), y(series.values[n * width + d] ?? 0));
      draw.stroke();
    }
    draw.fillStyle = getComputedStyle(shown).color;
    draw.fillRect(x(at), 0, 1.5, HEIGHT);
  }, [series, marks, end, at]);
  const clicked = (event: MouseEvent) => {
    const box = (event.currentTarget as HTMLElement).getBoundingClientRect();
    seek(((event.clientX - box.left) / box.width) * end);
  };
  return (
    <figure class="curve">
      <figcaption>{name} {series.names.map((one, d) => <span key={one} style={{ color: COLOURS[d % COLOURS.length] }}><span class="value">{one} {(series.values[place * width + d] ?? NaN).toPrecision(3)}</span> </span>)}</figcaption>
      <canvas ref={canvas} class="signal" onClick={clicked} aria-hidden="true" />
    </figure>
  );
}

function range(values: Float32Array): [number, number] {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return Number.isFinite(low) ? [low, high] : [0, 1];
}
