// The last decision in numbers: how long each stage took, how many drafted tokens were accepted, what was applied.
import type { LiveDecision } from "./live";

export function Decision({ decision }: { decision: LiveDecision }) {
  const stages = Object.entries(decision.stages);
  const longest = Math.max(1, ...stages.map(([, ms]) => ms));
  return (
    <section aria-label="Last decision">
      <h2>Decision {decision.number}</h2>
      <p>
        {decision.outcome}{decision.code && `, ${decision.code}`}{decision.reason && `: ${decision.reason}`}; {decision.latency_ms.toFixed(0)} ms, level {decision.level || "chosen by the service"}
        {decision.drafted > 0 && `; ${decision.accepted} of ${decision.drafted} drafted tokens accepted`}
      </p>
      {decision.steering && <Steering decision={decision} />}
      {decision.flags.length > 0 && <p>Flags: {decision.flags.join(", ")}</p>}
      <table class="stages">
        <caption class="quiet">Time by stage</caption>
        <tbody>
          {stages.map(([name, ms]) => (
            <tr key={name}>
              <th scope="row">{name}</th>
              <td>{ms.toFixed(1)} ms</td>
              <td><meter min={0} max={longest} value={ms} aria-label={`${name} ${ms.toFixed(1)} ms`} /></td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

function Steering({ decision }: { decision: LiveDecision }) {
  const drawn = decision.steering;
  if (!drawn) return null;
  const leftS = drawn.until - decision.taken_at;
  const isApplied = decision.applied_revision === drawn.revision;
  return (
    <p class={isApplied ? "good" : "warn"}>
      Drawn trace, revision {drawn.revision} by {drawn.author || "an unnamed person"}: {isApplied ? "applied" : "not applied"}, {leftS > 0 ? `ends in ${leftS.toFixed(0)} s` : "ended"}
    </p>
  );
}
