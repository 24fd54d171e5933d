// Rollouts: the newest with its stages, evidence and what it waits for; earlier ones in a line each.
import { answer, api } from "../../api/client";
import { useMe } from "../../app/me";
import { Empty } from "../../ui/states";
import { type Named, type Rollout, type State, time } from "./names";
import { type FleetDesk, OrderButton } from "./orders";

const TONES: Readonly<Record<string, string>> = { passed: "good", running: "good", "rolled back": "bad" };

interface RolloutsProps {
  state: State;
  named: Named;
  desk: FleetDesk;
}

export function Rollouts({ state, named, desk }: RolloutsProps) {
  const newestFirst = [...state.rollouts].reverse();
  const shown = newestFirst.filter((one, index) => index === 0 || isOpen(one));
  const earlier = newestFirst.filter((one) => !shown.includes(one));
  if (newestFirst.length === 0) return <Empty what="No rollout was started yet."><code>actwright fleet rollout start PLAN --release DIGEST</code> starts one (docs/fleet.md).</Empty>;
  return (
    <>
      {shown.map((one, index) => <OneRollout key={one.id} rollout={one} named={named} desk={desk} hasKeys={index === 0} />)}
      {earlier.length > 0 && (
        <details>
          <summary>{earlier.length} earlier rollouts</summary>
          <table>
            <thead><tr><th scope="col">Rollout</th><th scope="col">Release</th><th scope="col">Started</th><th scope="col">How it ended</th></tr></thead>
            <tbody>{earlier.map((one) => <tr key={one.id}><td>{one.id} {one.name}</td><td>{named(one.release)}</td><td>{time(one.started_at_s)} by {one.started_by}</td><td><Status status={one.status} />: {one.reason}</td></tr>)}</tbody>
          </table>
        </details>
      )}
    </>
  );
}

function isOpen(rollout: Rollout): boolean {
  return rollout.status === "running" || rollout.status === "paused";
}

function Status({ status }: { status: string }) {
  return <b class={TONES[status] ?? "warn"}>{status}</b>;
}

function OneRollout({ rollout, named, desk, hasKeys }: { rollout: Rollout; named: Named; desk: FleetDesk; hasKeys: boolean }) {
  const me = useMe();
  return (
    <section class="rollout" aria-label={`Rollout ${rollout.id}`}>
      <h2>Rollout {rollout.id}: {rollout.name}, <Status status={rollout.status} /></h2>
      <p>{named(rollout.release)} over {named(rollout.baseline)}; started by {rollout.started_by} on {time(rollout.started_at_s)}. {rollout.reason}</p>
      {rollout.override && <p class="warn">Let through by {rollout.override}</p>}
      <p>
        <b>reached {rollout.reached} of {rollout.proposed}</b>, of {rollout.cells} cells that the plan is about
        {rollout.stale > 0 && <span class="warn">, {rollout.stale} stale {rollout.stale_since_s ? `since ${time(rollout.stale_since_s)}` : "or never seen"}</span>}
      </p>
      <ol class="stages-of">{rollout.stages.map((stage) => <li key={stage} aria-current={stage === rollout.stage ? "step" : undefined}>{stage}</li>)}</ol>
      {isOpen(rollout) && <p>{rollout.missing.length ? <>Still needed: {rollout.missing.join("; ")}</> : "Nothing is missing for the next stage."}</p>}
      <Evidence rollout={rollout} />
      {me.may("operate") && me.has_session && <Orders rollout={rollout} desk={desk} hasKeys={hasKeys} />}
    </section>
  );
}

function Evidence({ rollout }: { rollout: Rollout }) {
  const guards = [...new Set([...Object.keys(rollout.guard_limits), ...Object.keys(rollout.guards)])];
  const proofs = Object.entries(rollout.proofs).map(([margin, factor]) => `not worse by ${margin}: ${factor} to 1`);
  return (
    <div class="columns">
      <table>
        <caption class="quiet">{rollout.finished} episodes of the new release ended. Evidence: {[...proofs, `worse: ${rollout.worse} to 1`].join("; ")}</caption>
        <thead><tr><th scope="col">Task and site</th><th scope="col">New release</th><th scope="col">Old release</th></tr></thead>
        <tbody>
          {rollout.strata.map((one) => <tr key={one.stratum}><td>{one.stratum}</td><td>{one.new_successes} of {one.new_trials}</td><td>{one.old_successes} of {one.old_trials}</td></tr>)}
          {rollout.strata.length === 0 && <tr><td colSpan={3} class="quiet">No block of episodes is complete yet.</td></tr>}
        </tbody>
      </table>
      {guards.length > 0 && (
        <table>
          <caption class="quiet">Guards: episodes with such an event; the rollout goes back where a share is shown to be over its limit</caption>
          <thead><tr><th scope="col">Guard</th><th scope="col">Episodes</th><th scope="col">Limit</th></tr></thead>
          <tbody>{guards.map((name) => <tr key={name}><td>{name}</td><td>{rollout.guards[name] ?? "none yet"}</td><td>{limit(rollout.guard_limits[name])}</td></tr>)}</tbody>
        </table>
      )}
    </div>
  );
}

function limit(share: number | undefined): string {
  return share === undefined ? "none" : `${Number((100 * share).toPrecision(3))} %`;
}

type Kind = "pause" | "resume" | "approve" | "abort" | "rollback";

function Orders({ rollout, desk, hasKeys }: { rollout: Rollout; desk: FleetDesk; hasKeys: boolean }) {
  const me = useMe();
  const path = { id: String(rollout.id) };
  const order = (kind: Kind) => (reason: string) => answer(api.POST("/api/fleet/rollouts/{id}/orders", { params: { path }, body: { kind, reason } }));
  const letter = (key: string) => (hasKeys ? { letter: key } : {});
  const open = isOpen(rollout);
  const next = rollout.stages[rollout.stages.indexOf(rollout.stage) + 1];
  return (
    <div class="bar">
      {open && next && <OrderButton name={`Approve ${next}`} does={`You agree that stage ${next} follows; one person counts once.`} desk={desk} give={order("approve")} {...letter("a")} />}
      {rollout.status === "running" && <OrderButton name="Pause" does="The cells stay as they are, and no stage follows." desk={desk} give={order("pause")} {...letter("p")} />}
      {rollout.status === "paused" && <OrderButton name="Resume" does="The rollout goes on; its stage gets its whole time again." desk={desk} give={order("resume")} {...letter("p")} />}
      {open && me.may("admin") && <OrderButton name="Skip the stage" does="The next stage follows without what this one asks for." desk={desk} needsReason give={(reason) => answer(api.POST("/api/fleet/rollouts/{id}/skip", { params: { path }, body: { reason } }))} />}
      {open && <OrderButton name="Abort" does="The rollout ends, and every cell stays as it is." desk={desk} needsReason give={order("abort")} />}
      {rollout.status !== "rolled back" && <OrderButton name="Roll back" does="The rollout ends, and the old release is proposed to every cell; each takes it at the end of its episode." desk={desk} needsReason isStop give={order("rollback")} {...letter("b")} />}
    </div>
  );
}
