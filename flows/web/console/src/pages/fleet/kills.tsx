// What is stopped: one person stops it, two persons release it.
import { answer, api } from "../../api/client";
import type { components } from "../../api/schema";
import { useMe } from "../../app/me";
import { type Named, type State, time } from "./names";
import { type FleetDesk, OrderButton } from "./orders";

type KillOrder = components["schemas"]["FleetKillOrder"];

const SCOPES: readonly (readonly [KillOrder["scope"], string])[] = [
  ["digest", "a release, by its whole digest"],
  ["model", "every version of a model"],
  ["cell", "a cell"],
  ["site", "a site"],
  ["fleet", "the whole fleet"],
];

export function Kills({ state, named, desk }: { state: State; named: Named; desk: FleetDesk }) {
  const me = useMe();
  const may = me.may("admin") && me.has_session;
  return (
    <section aria-label="Kill switch">
      {state.kills.length > 0 && (
        <table>
          <caption class="bad">{state.kills.length} kills are in force</caption>
          <thead><tr><th scope="col">Stopped</th><th scope="col">Why</th><th scope="col">By</th><th scope="col">Release</th></tr></thead>
          <tbody>
            {state.kills.map((one) => (
              <tr key={one.id}>
                <td>{one.scope} {one.scope === "digest" ? named(one.target) : one.target}</td>
                <td>{one.reason}</td>
                <td>{one.ordered_by}, {time(one.ordered_at_s)}</td>
                <td>
                  {one.release_asked_by ? `${one.release_asked_by} agreed, a second person has to` : "two persons have to agree"}
                  {may && <OrderButton name={`Release kill ${one.id}`} does="You agree that this may run again; two different persons have to." desk={desk} give={(reason) => answer(api.POST("/api/fleet/kills/{id}/release", { params: { path: { id: String(one.id) } }, body: { reason } }))} />}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      {may && (
        <div class="bar">
          <OrderButton name="Stop by the kill switch" does="What you name stops at once, wherever it runs; two persons have to release it. This is not a safety function: use the robot's own stop." desk={desk} needsReason isStop give={(reason, form) => answer(api.POST("/api/fleet/kills", { body: killOf(reason, form) }))}>
            <label class="wide">What<select name="scope">{SCOPES.map(([scope, means]) => <option key={scope} value={scope}>{means}</option>)}</select></label>
            <label class="wide">Its name or digest; empty for the whole fleet<input name="target" class="long" maxLength={200} list="kill-targets" /></label>
            <datalist id="kill-targets">{state.rollouts.map((one) => <option key={one.id} value={one.release}>{named(one.release)}</option>)}</datalist>
          </OrderButton>
        </div>
      )}
    </section>
  );
}

function killOf(reason: string, form: FormData): KillOrder {
  return { scope: String(form.get("scope")) as KillOrder["scope"], target: String(form.get("target") ?? "").trim(), reason };
}
