// The fleet: what its controller knows of cells and rollouts, what is stopped, and the orders that a person may give.
import { answer, api } from "../../api/client";
import { useMe } from "../../app/me";
import { Link } from "../../ui/link";
import { Named } from "../../ui/named";
import { Shown, useRefreshed, useResource } from "../../ui/resource";
import { Empty } from "../../ui/states";
import { Cells } from "./cells";
import { Kills } from "./kills";
import { type FleetPageDocument, type State, namesOf } from "./names";
import { type FleetDesk, OrderButton, useFleetDesk } from "./orders";
import { Rollouts } from "./rollouts";

const EVERY_MS = 2000;
const EVERY_MS_OF_MANY = 10_000;
const MANY = 500; // cells

export function FleetPage() {
  const page = useResource(() => answer(api.GET("/api/fleet")), []);
  const desk = useFleetDesk(page.again);
  const isLarge = (page.data?.state?.cells.length ?? 0) > MANY;
  useRefreshed(page, isLarge ? EVERY_MS_OF_MANY : EVERY_MS);
  return (
    <>
      <h1>Fleet</h1>
      <Shown of={page} what="the fleet">{(found) => (found.state ? <Fleet page={found} state={found.state} desk={desk} /> : <Empty what={found.absent} />)}</Shown>
    </>
  );
}

function Fleet({ page, state, desk }: { page: FleetPageDocument; state: State; desk: FleetDesk }) {
  const named = namesOf(page);
  return (
    <>
      <p class="quiet">
        Controller {page.controller}, key <code>{state.key_id.slice(0, 16)}</code>, last hash of its log <code>{state.head.slice(0, 16)}</code>. <Link to="/fleet/log">The log</Link>, <Link to="/fleet/ran">what ran where</Link>
      </p>
      <Named><Freezing state={state} desk={desk} /></Named>
      {state.is_frozen && <p class="warn">Frozen: no rollout starts or goes on; rollbacks still happen.</p>}
      {desk.said && <p class={desk.isBad ? "bad" : "good"} role="status">{desk.said}</p>}
      <Kills state={state} named={named} desk={desk} />
      <Rollouts state={state} named={named} desk={desk} />
      <Cells state={state} named={named} />
    </>
  );
}

function Freezing({ state, desk }: { state: State; desk: FleetDesk }) {
  const me = useMe();
  if (!state.is_frozen)
    return <div class="bar"><OrderButton name="Freeze rollouts" does="No rollout starts or goes on; rollbacks and kills still happen." desk={desk} needsReason give={(reason) => answer(api.POST("/api/fleet/freeze", { body: { reason } }))} /></div>;
  if (!me.may("admin")) return null;
  return <div class="bar"><OrderButton name="Let rollouts go on" does="Rollouts go on where they were." desk={desk} needsReason give={(reason) => answer(api.POST("/api/fleet/unfreeze", { body: { reason } }))} /></div>;
}
