// A second opinion on points: one frame after the other, without the label that it has, and what that says of the labels.
import { useState } from "preact/hooks";
import { answer, api } from "../../api/client";
import { go, useAddress, withQuery } from "../../app/address";
import { useKeys } from "../../app/keys";
import { useMe } from "../../app/me";
import { Named } from "../../ui/named";
import { Shown, useResource } from "../../ui/resource";
import { Empty } from "../../ui/states";

export function LabellingPage() {
  const place = useAddress().searchParams.get("place") ?? "";
  const places = useResource(() => answer(api.GET("/api/places")), []);
  const me = useMe();
  const sets = (places.data?.places ?? []).filter((one) => one.kind === "set" || one.kind === "edit");
  return (
    <>
      <h1>Labelling</h1>
      <p class="quiet">Where is the gripper? Frames are drawn at random; the label that a frame has is not shown.</p>
      <form class="bar" onSubmit={(event) => event.preventDefault()}>
        <label>Set<select value={place} onChange={(event) => go(withQuery({ place: event.currentTarget.value }))}><option value="">choose one</option>{sets.map((one) => <option key={one.key} value={one.key}>{one.name}</option>)}</select></label>
      </form>
      {!place ? <Empty what="Choose the set whose labels a second person judges." /> : me.may("operate") ? <Named><Frames key={place} place={place} /></Named> : <Agreement place={place} turn={0} />}
    </>
  );
}

function Frames({ place }: { place: string }) {
  const [turn, setTurn] = useState(0);
  const [failure, setFailure] = useState("");
  const task = useResource(() => answer(api.GET("/api/label", { params: { query: { place } } })), [place, turn]);
  const say = async (point: readonly [number, number] | null, abstained = false) => {
    const asked = task.data;
    if (!asked?.episode) return;
    const body = { place, episode: asked.episode, camera: asked.camera, frame: asked.frame, point: point as never, abstained };
    const made = await answer(api.POST("/api/label", { body }));
    setFailure("reason" in made ? made.reason : "");
    if ("data" in made) setTurn((now) => now + 1);
  };
  useKeys([
    { key: "n", does: "it is not in the image", run: () => void say(null) },
    { key: "a", does: "it cannot be told", run: () => void say(null, true) },
  ]);
  const clicked = (event: MouseEvent) => {
    const box = (event.currentTarget as HTMLElement).getBoundingClientRect();
    void say([(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height]);
  };
  return (
    <Shown of={task} what="the next frame">
      {(asked) => (
        <>
          <p role="status">{asked.done} of {asked.total} answered</p>
          {asked.episode ? (
            <figure class="camera">
              <div class="picture drawing" onClick={clicked}>
                <img src={`/api/episode/frame?${new URLSearchParams({ place, episode: asked.episode, camera: asked.camera, number: String(asked.frame), form: "png" })}`} alt={`${asked.camera}: click where the gripper is`} draggable={false} />
              </div>
              <div class="bar">
                <button type="button" title="n" onClick={() => void say(null)}>It is not in the image</button>
                <button type="button" title="a" onClick={() => void say(null, true)}>It cannot be told</button>
              </div>
            </figure>
          ) : <Empty what="You answered all frames. Thank you." />}
          {failure && <p class="failure" role="alert">{failure}</p>}
          <Agreement place={place} turn={turn} />
        </>
      )}
    </Shown>
  );
}

function Agreement({ place, turn }: { place: string; turn: number }) {
  const found = useResource(() => answer(api.GET("/api/label/agreement", { params: { query: { place } } })), [place, turn]);
  return (
    <Shown of={found} what="the agreement">
      {(told) => told.estimate === null || told.low === null || told.high === null ? <p class="quiet">The label error is not measured: {told.why}</p> : (
        <p>Label error at most about <b>{percent(told.estimate)}</b>, 95 % interval {percent(told.low)} to {percent(told.high)}, of {told.frames} frames by {told.people} people; {told.abstained} could not be told{told.pairs > 0 && <>; people contradict each other in {told.contradict} of {told.pairs}</>}.</p>
      )}
    </Shown>
  );
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}
