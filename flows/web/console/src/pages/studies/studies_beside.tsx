// Finished studies beside each other. "Better" stands only in what a study's own test showed.
import { answer, api } from "../../api/client";
import type { components } from "../../api/schema";
import { Link } from "../../ui/link";
import { percent, Range } from "../../ui/range";
import { Shown, useResource } from "../../ui/resource";
import { Outcome } from "../models/outcome";

type Beside = components["schemas"]["StudiesBeside"];
type Study = components["schemas"]["StudyResult"];
type Side = components["schemas"]["SideRate"];

export function StudiesBeside({ of }: { of: string }) {
  const beside = useResource(() => answer(api.GET("/api/studies/beside", { params: { query: { of } } })), [of]);
  return (
    <>
      <p><Link to="/models/studies">All studies</Link></p>
      <Shown of={beside} what="the studies">
        {(found) => (
          <>
            <Groups found={found} />
            <div class="columns">{found.studies.map((study) => <OneStudy key={study.study} study={study} />)}</div>
          </>
        )}
      </Shown>
    </>
  );
}

function Groups({ found }: { found: Beside }) {
  return (
    <section aria-label="Groups">
      <h2>Who can be told apart</h2>
      <ol>{found.groups.map((group) => <li key={group.join()}>{group.join(", ")}{group.length > 1 && <span class="quiet">: one group, the tests do not tell all of them apart</span>}</li>)}</ol>
      <p class="quiet">
        {found.studies.length > 1 && `Each verdict has its own probability of error; the probability that any of these ${found.studies.length} is wrong is at most ${percent(found.joint_error)}. `}
        Rates of different studies are not compared: their scenes differ.
      </p>
    </section>
  );
}

function OneStudy({ study }: { study: Study }) {
  return (
    <section class="rollout" aria-label={`Study ${study.study}`}>
      <h2>{study.candidate} against {study.champion}: <Outcome outcome={study.outcome} /></h2>
      {study.shown.map((sentence) => <p key={sentence}><b>{sentence}</b></p>)}
      {study.remarks.map((remark) => <p key={remark} class="warn">{remark}</p>)}
      <table class="whole-words">
        <caption class="quiet">Solved in pairs of the same scene, with exact 95 % intervals; {study.setting}, decided by {study.metric}</caption>
        <thead><tr><th scope="col">Task</th><th scope="col">{study.candidate}</th><th scope="col">{study.champion}</th><th scope="col">Difference</th></tr></thead>
        <tbody>
          {study.tasks.map((task) => (
            <tr key={task.task}>
              <td>{task.task}{task.void > 0 && <span class="warn"> ({task.void} void)</span>}</td>
              <td><Rate side={task.candidate} isScore={study.metric === "score"} /></td>
              <td><Rate side={task.champion} isScore={study.metric === "score"} /></td>
              <td>{signed(task.difference)} ({signed(task.low)} to {signed(task.high)})<br /><span class="quiet">alone: {task.wins} and {task.losses}</span></td>
            </tr>
          ))}
        </tbody>
      </table>
      <table class="whole-words">
        <caption class="quiet">Criteria of the verdict</caption>
        <thead><tr><th scope="col">Stands</th><th scope="col">Why</th></tr></thead>
        <tbody>{study.checks.map((check) => <tr key={check.name}><td><Outcome outcome={check.stands} /></td><td>{check.reason}</td></tr>)}</tbody>
      </table>
      <p class="quiet">{study.trials} trials are on record; error probability {percent(study.alpha)}. <code>actwright study verify --head {study.head.slice(0, 16)}</code> proves them.</p>
    </section>
  );
}

function Rate({ side, isScore }: { side: Side; isScore: boolean }) {
  return (
    <>
      {side.successes} of {side.trials}: {percent(side.low)} to {percent(side.high)}<br />
      <Range low={side.low} high={side.high} at={side.trials ? side.successes / side.trials : 0} />
      {isScore && <><br /><span class="quiet">mean score {side.score.toFixed(2)}</span></>}
    </>
  );
}

function signed(share: number): string {
  return `${share > 0 ? "+" : ""}${(100 * share).toFixed(0)} %`;
}
