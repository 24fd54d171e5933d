// One study's trials, led by the person at the robot: lay out, start, stop, what came of it. Made for a phone that loses its connection.
import { useEffect, useState } from "preact/hooks";
import { type Answer, answer, api } from "../../api/client";
import type { components } from "../../api/schema";
import { remember, remembered } from "../../app/kept";
import { useMe } from "../../app/me";
import type { PageProps } from "../../app/pages";
import { Named } from "../../ui/named";
import { useRefreshed, useResource } from "../../ui/resource";
import { Failure, Loading } from "../../ui/states";
import { type Outcome, OutcomeForm } from "./outcome";
import { PATIENCE_MS, type Queue, newKey, useQueue } from "./queue";

type Now = components["schemas"]["TrialNow"];

const EVERY_MS = 700;

export function TrialPage({ parts }: PageProps) {
  const study = parts["study"] ?? "";
  const me = useMe();
  const queue = useQueue();
  const found = useResource(() => answer(api.GET("/api/trials/{study}", { params: { path: { study } }, signal: AbortSignal.timeout(PATIENCE_MS) })), [study]);
  useRefreshed(found, EVERY_MS);
  const now = found.data ?? (found.failure ? remembered<Now>(`trial ${study}`) : null); // a page that was loaded again without connection
  useEffect(() => {
    if (found.data) remember(`trial ${study}`, found.data);
  }, [found.data]);
  const unsent = queue.kept.filter((one) => one.study === study);
  if (now === null) return found.failure ? <Failure reason={found.failure} again={found.again} /> : <Loading what="the study" />;
  return (
    <div class="trial">
      {found.failure && (
        <div class="notice bad" role="alert">
          <p><b>Not connected.</b> What you record is kept on this phone and sent once. Start and stop need the connection: use the robot's own stop.</p>
          <p class="quiet">{found.failure}</p>
          <button type="button" onClick={me.again}>Connect again</button>
        </div>
      )}
      {unsent.map((one) => <p class="notice" key={one.key} role="status">Trial {one.number}, {one.success ? "success" : "failure"}: kept on this phone, not sent yet.</p>)}
      {queue.told && <p class="notice bad" role="alert">{queue.told}</p>}
      <Named><Trial key={`${now.study}-${now.number}`} now={now} isLost={found.failure !== ""} queue={queue} /></Named>
      <Last now={now} />
    </div>
  );
}

function Trial({ now, isLost, queue }: { now: Now; isLost: boolean; queue: Queue }) {
  const [failure, setFailure] = useState("");
  const [isBusy, setBusy] = useState(false);
  const [isSaid, setSaid] = useState(false);
  const params = { path: { study: now.study } };
  const said = isSaid || queue.kept.some((one) => one.study === now.study && one.number === now.number);
  const ordered = async (call: Promise<Answer<unknown>>) => {
    setBusy(true);
    const came = await call;
    setBusy(false);
    setFailure("reason" in came ? came.reason : "");
  };
  const start = () => ordered(answer(api.POST("/api/trials/{study}/start", { params, body: { number: now.number, heard_at: now.heard_at }, signal: AbortSignal.timeout(PATIENCE_MS) })));
  const stop = () => ordered(answer(api.POST("/api/trials/{study}/stop", { params, body: { number: now.number } })));
  const record = (outcome: Outcome) => {
    setSaid(true);
    queue.say({ ...outcome, study: now.study, number: now.number, key: newKey() });
  };
  if (!now.phase && !isLost) return <p class="notice" role="status">No program runs this study now: it has ended, or was stopped and goes on with the same command.</p>;
  return (
    <>
      <h1>Trial {now.number} <span class="quiet">of at most {now.planned}</span></h1>
      <dl class="facts">
        <dt>Task</dt><dd>{now.task}</dd>
        <dt>Scene</dt><dd>{now.scene}</dd>
        <dt>Policy</dt><dd>{now.blind}</dd>
      </dl>
      {now.phase === "lay out" && (
        <>
          <p>Lay out scene {now.scene} and step back. The robot moves after Start.</p>
          <button type="button" class="big main" disabled={isLost || isBusy} onClick={() => void start()}>Start</button>
        </>
      )}
      {now.phase === "running" && (
        <>
          <p role="status">The robot is at work{now.mode && `: ${now.mode}`}.</p>
          <button type="button" class="big stop" disabled={isLost} onClick={() => void stop()}>Stop</button>
          <p class="quiet">A trial that a person stops is a failure, with the stage that it reached.</p>
        </>
      )}
      {said ? <p role="status">Recorded on this phone.</p> : (now.phase === "label" || (now.phase === "running" && isLost)) && <OutcomeForm now={now} done={record} />}
      {failure && <p class="failure" role="alert">{failure}</p>}
    </>
  );
}

function Last({ now }: { now: Now }) {
  return (
    <>
      {now.last && (
        <p role="status">
          On record: trial {now.last.number}, {now.last.blind}: <b>{now.last.outcome}</b>
          {now.last.outcome === "failure" && `, ${Math.round(100 * now.last.progress)} % of the stages`} <span class="quiet">({now.last.stop_reason})</span>
        </p>
      )}
      <details>
        <summary>When a trial is void</summary>
        <p>This was written before the first trial: {now.void_rule}.</p>
      </details>
    </>
  );
}
