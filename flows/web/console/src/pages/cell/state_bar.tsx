// What the robot is doing and why, and what a person may order at once: hold, go on, stop, resume.
import { useRef } from "preact/hooks";
import { useKeys } from "../../app/keys";
import { useMe } from "../../app/me";
import type { LiveUpdate } from "./live";
import type { Desk } from "./orders";

const WORDS: Readonly<Record<string, string>> = { RUN: "runs", STRETCH: "slowed", HOLD: "holds", SAFE_STOP: "stopped" };

export function StateBar({ now, isLost, desk }: { now: LiveUpdate; isLost: boolean; desk: Desk }) {
  const me = useMe();
  const mode = isLost ? "unknown" : now.has_ended ? "ended" : now.is_running ? now.mode : "between";
  return (
    <section class={`state-bar mode-${mode}`} aria-label="State">
      <p class="mode" role="status">
        <b>{isLost ? "Not heard" : now.has_ended ? "Cell ended" : now.is_running ? `${now.mode} (${WORDS[now.mode] ?? now.mode})` : "Between episodes"}</b>{" "}
        <span>{isLost ? "no news from the console: what is shown is not live" : `${now.reason} for ${now.mode_for_s.toFixed(0)} s`}</span>
      </p>
      <p class="quiet">
        {now.task}: episode {now.episode}, step {now.step}; {now.counts["successes"] ?? 0} of {now.counts["finished"] ?? 0} solved, {now.counts["decisions"] ?? 0} decisions, {now.counts["refused"] ?? 0} refused, {now.counts["holds"] ?? 0} held steps. {now.model_version}
      </p>
      {me.may("operate") && !now.has_ended && <Demands now={now} desk={desk} />}
      <p class={desk.isBad ? "bad" : "good"} role="status">{desk.said}</p>
    </section>
  );
}

function Demands({ now, desk }: { now: LiveUpdate; desk: Desk }) {
  const me = useMe();
  const dialog = useRef<HTMLDialogElement>(null);
  useKeys([
    { key: "h", does: "hold the cell", run: () => void desk.give({ kind: "hold" }) },
    { key: "o", does: "let a held cell go on", run: () => void desk.give({ kind: "go" }) },
    { key: "x", does: "stop the cell", run: () => dialog.current?.showModal() },
  ]);
  const stop = (event: SubmitEvent) => {
    const form = event.currentTarget as HTMLFormElement;
    if ((event.submitter as HTMLButtonElement | null)?.value !== "stop") return;
    void desk.give({ kind: "stop", sentence: String(new FormData(form).get("why") ?? "").trim() || "no reason given" });
  };
  return (
    <div class="bar">
      <button type="button" onClick={() => void desk.give({ kind: "hold" })} title="h">Hold</button>
      <button type="button" onClick={() => void desk.give({ kind: "go" })} title="o">Go on</button>
      <button type="button" class="stop" onClick={() => dialog.current?.showModal()} title="x">Stop ...</button>
      {now.mode === "SAFE_STOP" && me.may("admin") && <button type="button" onClick={() => void desk.give({ kind: "resume" })}>Resume</button>}
      <dialog ref={dialog} aria-labelledby="stop-title">
        <form method="dialog" onSubmit={stop}>
          <h2 id="stop-title">Stop this cell?</h2>
          <p>It stays stopped until a person resumes it.</p>
          <label>Why <input name="why" maxLength={300} /></label>
          <div class="bar">
            <button value="stop" class="stop">Stop</button>
            <button value="no">Do not stop</button>
          </div>
        </form>
      </dialog>
    </div>
  );
}
