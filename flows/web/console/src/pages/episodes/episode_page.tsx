// The player: all cameras, depth, trace and signals of one episode on one time axis, frame by frame.
import { useCallback, useEffect, useMemo, useRef, useState } from "preact/hooks";
import { answer, api } from "../../api/client";
import type { components } from "../../api/schema";
import { go, lineageOf, useAddress, withQuery } from "../../app/address";
import { useKeys } from "../../app/keys";
import { useMe } from "../../app/me";
import type { PageProps } from "../../app/pages";
import { Link } from "../../ui/link";
import { Named } from "../../ui/named";
import type { Spot } from "../../ui/pointing";
import { Shown, useResource } from "../../ui/resource";
import { CameraView } from "./camera_view";
import { Outcome } from "./episodes_page";
import { SignalChart } from "./signal_chart";
import { type Signals, fetchSignals, placeAt } from "./signals";
import { RevisionList, StatePanel, useStating } from "./stating";
import { TrimHandles } from "./trim_handles";

type Page = components["schemas"]["EpisodePage"];

export function EpisodePage({ parts }: PageProps) {
  const query = { place: parts["place"] ?? "", episode: parts["episode"] ?? "" };
  const page = useResource(() => answer(api.GET("/api/episode", { params: { query } })), [query.place, query.episode]);
  const signals = useResource(() => fetchSignals(query.place, query.episode), [query.place, query.episode]);
  return (
    <>
      <h1>{query.episode}</h1>
      <Shown of={page} what="the episode">{(found) => <Shown of={signals} what="its signals">{(numbers) => <Player key={query.episode} page={found} signals={numbers} again={page.again} />}</Shown>}</Shown>
    </>
  );
}

function Player({ page, signals, again }: { page: Page; signals: Signals; again: () => void }) {
  const me = useMe();
  const camera = page.cameras[0]?.name ?? "";
  const times = signals.frames[camera] ?? Object.values(signals.series)[0]?.times;
  const count = times?.length ?? 0;
  const { at, setAt, move } = usePlace(count, times);
  const [plays, setPlays] = useState(false);
  const seconds = times?.[at] ?? 0;
  const seek = useCallback((to: number) => setAt(placeAt(times, to)), [times]);
  const stating = useStating(page.line.place, [page.line.episode], again);
  usePlaying(plays, at, times, (next) => (next < count ? setAt(next) : setPlays(false)));
  useKeys([
    { key: "ArrowRight", does: "the next frame", run: () => move(1) },
    { key: "ArrowLeft", does: "the frame before", run: () => move(-1) },
    { key: "PageDown", does: "ten frames on", run: () => move(10) },
    { key: "PageUp", does: "ten frames back", run: () => move(-10) },
    { key: "Home", does: "the first frame", run: () => setAt(0) },
    { key: "End", does: "the last frame", run: () => setAt(count - 1) },
    { key: " ", does: "play or stop", run: () => setPlays(!plays) },
  ]);
  return (
    <>
      <Facts page={page} />
      <Cameras page={page} signals={signals} seconds={seconds} mayDraw={me.may("operate") && me.has_session} state={stating.state} />
      <div class="axis">
        <button type="button" onClick={() => setPlays(!plays)} title="space">{plays ? "Stop" : "Play"}</button>
        <input type="range" min={0} max={Math.max(count - 1, 0)} value={at} aria-label="Frame" onInput={(event) => setAt(Number(event.currentTarget.value))} />
        <output>{seconds.toFixed(2)} of {signals.end_s.toFixed(2)} s, frame {at}</output>
      </div>
      {me.may("operate") && me.has_session && <TrimHandles page={page} show={setAt} keep={(first, end) => void stating.state({ trim: { first, end } })} />}
      {Object.entries(signals.series).map(([name, series]) => <SignalChart key={name} name={name} series={series} marks={signals.marks} end={signals.end_s} at={seconds} seek={seek} />)}
      <Marks signals={signals} seek={seek} />
      <Named><StatePanel page={page} frame={at} stating={stating} /></Named>
      <RevisionList page={page} stating={stating} />
    </>
  );
}

/** The frame of the address: `frame`, or `s` seconds, as other pages link to it. move: from where the last call went, drawn or not yet. */
function usePlace(count: number, times: Float32Array | undefined): { at: number; setAt: (to: number) => void; move: (by: number) => void } {
  const query = useAddress().searchParams;
  const inside = (to: number) => Math.max(0, Math.min(count - 1, Number.isFinite(to) ? Math.trunc(to) : 0));
  const stated = query.has("frame") ? Number(query.get("frame")) : query.has("s") ? placeAt(times, Number(query.get("s"))) : 0;
  const at = inside(stated);
  const last = useRef(at);
  last.current = at;
  const setAt = (to: number) => {
    last.current = inside(to);
    go(withQuery({ frame: String(last.current), s: "" }), true);
  };
  return { at, setAt, move: (by) => setAt(last.current + by) };
}

function usePlaying(plays: boolean, at: number, times: Float32Array | undefined, show: (next: number) => void): void {
  useEffect(() => {
    if (!plays) return;
    const wait = 1000 * Math.max(0.02, (times?.[at + 1] ?? 0) - (times?.[at] ?? 0));
    const timer = setTimeout(() => show(at + 1), wait);
    return () => clearTimeout(timer);
  }, [plays, at]);
}

function Facts({ page }: { page: Page }) {
  const { line } = page;
  const kept = page.first > 0 || page.end < page.recorded_length ? `, kept ${page.first} to ${page.end - 1}` : "";
  return (
    <p>
      <Outcome row={line} />{line.causes.length > 0 && <> ({line.causes.join(", ").replaceAll("_", " ")})</>}; {line.task}: {line.instruction}; {page.recorded_length} frames{kept}; {line.model ? <Link to={lineageOf(line.model)}>{line.model}</Link> : line.producer} {line.cell}
      <span class="quiet"> in {line.set} ({line.kind}) {line.choice.replace("_", " ")}</span>
      {page.findings.length > 0 && <span class="warn"> inspection: {page.findings.join(", ")}</span>}
    </p>
  );
}

interface CamerasProps {
  page: Page;
  signals: Signals;
  seconds: number;
  mayDraw: boolean;
  state: (changes: Record<string, Record<string, unknown>>) => Promise<void>;
}

/** All cameras at one time. A point or trace that is drawn belongs to the camera and frame where its first point is set. */
function Cameras({ page, signals, seconds, mayDraw, state }: CamerasProps) {
  const [mode, setMode] = useState<"" | "point" | "trace">("");
  const [drawn, setDrawn] = useState<{ camera: string; frame: number; spots: Spot[]; size: { width: number; height: number } } | null>(null);
  const end = () => { setMode(""); setDrawn(null); };
  const save = () => {
    if (!drawn) return;
    const points = drawn.spots.map((one) => [one.x * (drawn.size.width - 1), one.y * (drawn.size.height - 1)]);
    const where = { camera: drawn.camera, frame: drawn.frame };
    void state(mode === "point" ? { point: { ...where, point: points[0] } } : { trace: { ...where, points } }).then(end);
  };
  useKeys(useMemo(() => !mayDraw ? [] : [
    { key: "p", does: "set the gripper's point", run: () => { setDrawn(null); setMode("point"); } },
    { key: "d", does: "draw a trace of 1 to 5 points", run: () => { setDrawn(null); setMode("trace"); } },
    { key: "Enter", does: "keep what was drawn", run: save },
    { key: "Escape", does: "give up what was drawn", run: end },
  ], [mayDraw, mode, drawn]));
  return (
    <>
      <div class="cameras">
        {page.cameras.map(({ name, frames }) => {
          const number = placeAt(signals.frames[name], seconds);
          const address = (frame: number, what = "frame") => `/api/episode/${what}?${new URLSearchParams({ place: page.line.place, episode: page.line.episode, camera: name, number: String(frame), state: page.state })}`;
          const mine = drawn?.camera === name && drawn.frame === number ? drawn.spots : [];
          const add = (spot: Spot, size: { width: number; height: number }) => setDrawn({ camera: name, frame: number, size, spots: mode === "point" ? [spot] : [...mine, spot].slice(0, 5) });
          return <CameraView key={name} address={address} camera={name} number={number} count={frames} hasDepth={signals.depth.includes(name)} trace={[...(signals.traces[name] ?? [])].slice(number * 10, number * 10 + 10)} drawn={mode ? mine : null} add={add} />;
        })}
      </div>
      {mode && (
        <div class="bar" role="status">
          <span>{mode === "point" ? "Click where the gripper is, or move the cursor by arrows and set it by the space bar." : `Click 1 to 5 points, the first where the gripper is (${drawn?.spots.length ?? 0} set).`}</span>
          <button type="button" class="main" disabled={!drawn?.spots.length} onClick={save}>Keep</button>
          {mode === "trace" && <button type="button" disabled={!drawn?.spots.length} onClick={() => drawn && setDrawn({ ...drawn, spots: drawn.spots.slice(0, -1) })}>Take the last point back</button>}
          {mode === "point" && <button type="button" onClick={() => { const name = page.cameras[0]?.name ?? ""; void state({ point: { camera: name, frame: placeAt(signals.frames[name], seconds), point: null } }).then(end); }}>It is not in the image</button>}
          <button type="button" onClick={end}>Give up</button>
        </div>
      )}
      {mayDraw && !mode && <div class="bar"><button type="button" title="p" onClick={() => setMode("point")}>Set a point</button><button type="button" title="d" onClick={() => setMode("trace")}>Draw a trace</button></div>}
    </>
  );
}

function Marks({ signals, seek }: { signals: Signals; seek: (seconds: number) => void }) {
  if (signals.marks.length === 0) return null;
  return (
    <ul class="marks" aria-label="What happened">
      {signals.marks.slice(0, 200).map((one, n) => <li key={n}><button type="button" onClick={() => seek(one.start_s)}>{one.start_s.toFixed(2)} s</button> {one.kind}: {one.text}</li>)}
    </ul>
  );
}
