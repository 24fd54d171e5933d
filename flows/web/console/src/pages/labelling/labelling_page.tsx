// A second opinion on points and traces: one frame after the other, without the label that it has, and what that says of the labels.
import { useState } from "preact/hooks";
import { answer, api } from "../../api/client";
import { go, useAddress, withQuery } from "../../app/address";
import { useMe } from "../../app/me";
import { Named } from "../../ui/named";
import { Shown, useResource } from "../../ui/resource";
import { Empty } from "../../ui/states";
import { Agreement } from "./agreement";
import { PointForm } from "./point_form";
import type { Said, What } from "./task";
import { TraceForm } from "./trace_form";

const ASKED: Readonly<Record<What, string>> = {
  point: "Where is the gripper?",
  trace: "Which way does the gripper go from this frame to the end of the episode?",
};

export function LabellingPage() {
  const query = useAddress().searchParams;
  const place = query.get("place") ?? "";
  const what: What = query.get("what") === "trace" ? "trace" : "point";
  const places = useResource(() => answer(api.GET("/api/places")), []);
  const me = useMe();
  const sets = (places.data?.places ?? []).filter((one) => one.kind === "set" || one.kind === "edit");
  return (
    <>
      <h1>Labelling</h1>
      <p class="quiet">{ASKED[what]} Frames are drawn at random; the label that a frame has is not shown.</p>
      <form class="bar" onSubmit={(event) => event.preventDefault()}>
        <label>Set<select value={place} onChange={(event) => go(withQuery({ place: event.currentTarget.value }))}><option value="">choose one</option>{sets.map((one) => <option key={one.key} value={one.key}>{one.name}</option>)}</select></label>
        <label>Of each frame<select value={what} onChange={(event) => go(withQuery({ what: event.currentTarget.value === "trace" ? "trace" : "" }))}><option value="point">the point of the gripper</option><option value="trace">the trace that follows</option></select></label>
      </form>
      {!place ? <Empty what="Choose the set whose labels a second person judges." /> : me.may("operate") ? <Named><Frames key={`${place} ${what}`} place={place} what={what} /></Named> : <Agreement place={place} what={what} />}
    </>
  );
}

function Frames({ place, what }: { place: string; what: What }) {
  const [turn, setTurn] = useState(0);
  const [failure, setFailure] = useState("");
  const task = useResource(() => answer(api.GET("/api/label", { params: { query: { place, what } } })), [place, what, turn]);
  const say = async ({ point, trace = [], abstained = false }: Said) => {
    const asked = task.data;
    if (!asked?.episode) return;
    const body = { place, what, episode: asked.episode, camera: asked.camera, frame: asked.frame, point: (point ?? null) as never, trace, abstained };
    const made = await answer(api.POST("/api/label", { body }));
    setFailure("reason" in made ? made.reason : "");
    if ("data" in made) setTurn((now) => now + 1);
  };
  const Form = what === "trace" ? TraceForm : PointForm;
  return (
    <Shown of={task} what="the next frame">
      {(asked) => (
        <>
          <p role="status">{asked.done} of {asked.total} answered</p>
          {asked.episode ? <Form key={`${asked.episode} ${asked.frame}`} place={place} asked={asked} say={(said) => void say(said)} /> : <Empty what="You answered all frames. Thank you." />}
          {failure && <p class="failure" role="alert">{failure}</p>}
          <SoFar place={place} what={what} isDone={!asked.episode} />
        </>
      )}
    </Shown>
  );
}

/** Who still answers sees it only on demand: an estimate that moves with each answer would tell what the labels say. */
function SoFar({ place, what, isDone }: { place: string; what: What; isDone: boolean }) {
  const [isOpen, setOpen] = useState(false);
  if (isDone) return <Agreement place={place} what={what} />;
  return (
    <details onToggle={(event) => setOpen((event.currentTarget as HTMLDetailsElement).open)}>
      <summary>What the answers say of the labels</summary>
      {isOpen && <Agreement place={place} what={what} />}
    </details>
  );
}
