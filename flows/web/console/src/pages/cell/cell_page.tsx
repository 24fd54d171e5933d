// One live cell: what its cameras saw, what it predicts, does and is told.
import { useMe } from "../../app/me";
import type { PageProps } from "../../app/pages";
import { SignIn } from "../../app/sign_in";
import { Loading } from "../../ui/states";
import { Actions } from "./actions";
import { Decision } from "./decision";
import { Depth } from "./depth";
import { DrawBar } from "./draw_bar";
import { toPixels, useDrawing } from "./drawing";
import { Instruction } from "./instruction";
import { type Live, type LiveBody, type LiveUpdate, type Point, useLive } from "./live";
import { useDesk } from "./orders";
import { PenBar, usePen } from "./pen";
import { Picture } from "./picture";
import { StateBar } from "./state_bar";

export function CellPage({ parts }: PageProps) {
  const cell = parts["cell"] ?? "";
  const { live, isLost } = useLive(cell);
  const me = useMe();
  if (live.now === null || live.body === null) {
    return isLost ? <p class="state failure" role="alert">{cell} shows nothing. Is it in the list of cells? Start it with `actwright workcell run`.</p> : <Loading what={cell} />;
  }
  if (me.may("operate") && !me.has_session) return <SignIn needsToken={false} done={me.again} />;
  return <Cell cell={cell} live={live} now={live.now} body={live.body} isLost={isLost} />;
}

interface CellProps {
  cell: string;
  live: Live;
  now: LiveUpdate;
  body: LiveBody;
  isLost: boolean;
}

function Cell({ cell, live, now, body, isLost }: CellProps) {
  const desk = useDesk(cell);
  const pen = usePen(cell, now.pen.name);
  const drawing = useDrawing(body.trace_points);
  const size = body.cameras.find((one) => one.name === body.trace_camera) ?? body.cameras[0] ?? { name: "", width: 1, height: 1 };
  const onImage = (points: readonly Point[]) => toPixels(points, body.trace_range, size.width, size.height);
  const predicted = onImage((live.decision?.trace ?? []) as unknown as Point[]);
  const mayDraw = pen.isMine && body.takes_steering && !now.has_ended;
  return (
    <>
      <h1>{cell}</h1>
      <StateBar now={now} isLost={isLost} desk={desk} />
      <PenBar pen={pen} />
      <Instruction sentence={now.instruction} mayChange={pen.isMine} desk={desk} />
      {mayDraw && <DrawBar drawing={drawing} desk={desk} body={body} decision={live.decision} predicted={predicted} size={size} />}
      <div class="cell">
        <div class="pictures">
          {body.cameras.map((camera) => {
            const isTraced = camera.name === size.name;
            const applied = live.decision?.steering?.camera === camera.name ? (live.decision.steering.points as unknown as Point[]) : [];
            return (
              <Picture key={camera.name} camera={camera} source={live.decision ? pictureOf(cell, live.decision.number, camera.name) : ""} isStale={isLost || now.is_stale} ageS={now.picture_age_s + (isLost ? (performance.now() - live.heardAt) / 1000 : 0)} predicted={isTraced ? predicted : []} passed={isTraced ? onImage(live.passed) : []} applied={applied} drawing={isTraced && mayDraw ? drawing : null} />
            );
          })}
          <p class="legend quiet"><i class="predicted" /> predicted <i class="passed" /> passed (where earlier decisions saw the gripper) <i class="applied" /> steering in force <i class="drawn" /> drawn</p>
          {live.decision && <Depth cell={cell} body={body} decision={live.decision} desk={desk} mayEdit={mayDraw} />}
        </div>
        <div>
          {live.decision && <Decision decision={live.decision} />}
          <Actions body={body} rows={live.rows} />
          <Events live={live} />
        </div>
      </div>
    </>
  );
}

function pictureOf(cell: string, number: number, camera: string): string {
  return `/api/cells/${encodeURIComponent(cell)}/pictures/${number}/${encodeURIComponent(camera)}`;
}

function Events({ live }: { live: Live }) {
  const lines = [...live.events.map((one) => ({ at: one.at, text: `${one.kind} ${one.text}` })), ...live.outcomes.map((one) => ({ at: one.at, text: `order of ${one.author}: ${one.kind} ${one.outcome} ${one.reason}` }))];
  lines.sort((a, b) => b.at - a.at);
  return (
    <section aria-label="What happened">
      <h2>What happened</h2>
      <ul class="events" tabIndex={0}>{lines.slice(0, 40).map((one, index) => <li key={`${one.at}-${index}`}><time>{new Date(1000 * one.at).toLocaleTimeString()}</time> {one.text}</li>)}</ul>
    </section>
  );
}
