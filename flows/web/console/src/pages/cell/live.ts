// The live stream of a cell: one event source, and what its events add up to.
import { useEffect, useState } from "preact/hooks";
import type { components } from "../../api/schema";

type Schemas = components["schemas"];
export type LiveUpdate = Schemas["LiveUpdate"];
export type LiveBody = Schemas["LiveBody"];
export type LiveDecision = Schemas["LiveDecision"];
export type LiveRow = Schemas["LiveRow"];
export type Point = readonly [number, number];

const KEPT_ROWS = 300;
const KEPT_EVENTS = 60;
const KEPT_PASSED = 60;
const LOST_AFTER_MS = 2500;
const AGAIN_AFTER_MS = 2000;

export interface Live {
  now: LiveUpdate | null;
  body: LiveBody | null;
  decision: LiveDecision | null;
  rows: readonly LiveRow[];
  events: LiveUpdate["events"];
  outcomes: LiveUpdate["outcomes"];
  /** Where the model saw the gripper at earlier decisions of this episode, in 0..trace_range. */
  passed: readonly Point[];
  /** When the last event came, by this page's clock. */
  heardAt: number;
}

const NOTHING: Live = { now: null, body: null, decision: null, rows: [], events: [], outcomes: [], passed: [], heardAt: 0 };

export function added(live: Live, update: LiveUpdate, heardAt: number): Live {
  const isNewEpisode = live.now !== null && update.episode !== live.now.episode;
  const before = isNewEpisode ? { ...live, rows: [], passed: [] } : live;
  const at = update.decision?.trace[0];
  return {
    now: update,
    body: update.body ?? before.body,
    decision: update.decision ?? (isNewEpisode ? null : before.decision),
    rows: [...before.rows, ...update.rows].slice(-KEPT_ROWS),
    events: [...before.events, ...update.events].slice(-KEPT_EVENTS),
    outcomes: [...before.outcomes, ...update.outcomes].slice(-KEPT_EVENTS),
    passed: at ? [...before.passed, at as unknown as Point].slice(-KEPT_PASSED) : before.passed,
    heardAt,
  };
}

/** isLost: no event came for a while; what is shown is then no longer live, whatever it says. */
export function useLive(cell: string): { live: Live; isLost: boolean } {
  const [live, setLive] = useState<Live>(NOTHING);
  const [isLost, setLost] = useState(false);
  useEffect(() => {
    setLive(NOTHING);
    let heardAt = performance.now();
    let source: EventSource;
    let next: ReturnType<typeof setTimeout> | undefined;
    let frame = 0;
    let whole = NOTHING; // with every event; shown once a frame, so that a slow page skips pictures and is not behind
    const show = () => {
      frame = 0;
      setLost(false);
      setLive(whole);
    };
    const open = () => {
      source = new EventSource(`/api/cells/${encodeURIComponent(cell)}/live`);
      source.onmessage = (event: MessageEvent<string>) => {
        heardAt = performance.now();
        whole = added(whole, JSON.parse(event.data) as LiveUpdate, heardAt);
        frame ||= requestAnimationFrame(show);
      };
      source.onerror = () => {
        // a browser opens a stream again by itself, but not one that was refused
        if (source.readyState === EventSource.CLOSED) next = setTimeout(open, AGAIN_AFTER_MS);
      };
    };
    open();
    const watch = setInterval(() => setLost(performance.now() - heardAt > LOST_AFTER_MS), 500);
    return () => {
      source.close();
      clearTimeout(next);
      cancelAnimationFrame(frame);
      clearInterval(watch);
    };
  }, [cell]);
  return { live, isLost };
}
