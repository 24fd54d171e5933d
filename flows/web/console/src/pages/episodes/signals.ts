// The numbers of an episode as the console packs them (components/data/episodes/signals.py): a header, then float32.
export interface Series {
  names: readonly string[];
  times: Float32Array;
  values: Float32Array;
}

export interface Mark {
  kind: string;
  start_s: number;
  end_s: number;
  text: string;
}

export interface Signals {
  frames: Record<string, Float32Array>;
  series: Record<string, Series>;
  /** Of each frame 5 points (x, y) of 0 to 255, -1 where there are fewer. */
  traces: Record<string, Float32Array>;
  marks: readonly Mark[];
  depth: readonly string[];
  end_s: number;
}

interface Placed {
  at: number;
  shape: readonly number[];
}

interface Header {
  frames: Record<string, Placed>;
  series: Record<string, { names: string[]; times: Placed; values: Placed }>;
  traces: Record<string, Placed>;
  marks: Mark[];
  depth: string[];
}

export async function fetchSignals(place: string, episode: string): Promise<{ data: Signals } | { reason: string }> {
  try {
    const response = await fetch(`/api/episode/signals?${new URLSearchParams({ place, episode })}`);
    if (!response.ok) return { reason: String(((await response.json()) as { reason?: string }).reason) };
    return { data: unpacked(await response.arrayBuffer()) };
  } catch {
    return { reason: "The signals of this episode cannot be read. Is `actwright console` still running?" };
  }
}

export function unpacked(bytes: ArrayBuffer): Signals {
  const length = new DataView(bytes).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, length))) as Header;
  const read = (one: Placed) => new Float32Array(bytes, 4 + length + 4 * one.at, one.shape.reduce((a, b) => a * b, 1));
  const map = <A, B>(given: Record<string, A>, make: (one: A) => B): Record<string, B> => Object.fromEntries(Object.entries(given).map(([name, one]) => [name, make(one)]));
  const frames = map(header.frames, read);
  const series = map(header.series, (one) => ({ names: one.names, times: read(one.times), values: read(one.values) }));
  const ends = [...Object.values(frames), ...Object.values(series).map((one) => one.times)].map((times) => times.at(-1) ?? 0);
  return { frames, series, traces: map(header.traces, read), marks: header.marks, depth: header.depth, end_s: Math.max(0, ...ends) };
}

/** The last place whose time is not after `at`; 0 where all are. */
export function placeAt(times: Float32Array | undefined, at: number): number {
  if (!times) return 0;
  let low = 0;
  let high = times.length;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if ((times[middle] ?? 0) <= at + 1e-4) low = middle;
    else high = middle;
  }
  return low;
}
