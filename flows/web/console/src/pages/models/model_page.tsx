import { answer, api } from "../../api/client";
import type { components } from "../../api/schema";
import { lineageOf } from "../../app/address";
import type { PageProps } from "../../app/pages";
import { Curves } from "../../ui/curves";
import { Link } from "../../ui/link";
import { percent, Range } from "../../ui/range";
import { Shown, useResource } from "../../ui/resource";
import { Outcome } from "./outcome";

type Page = components["schemas"]["ModelPage"];

export function ModelPage({ parts }: PageProps) {
  const path = { name: parts["name"] ?? "", version: parts["version"] ?? "" };
  const page = useResource(() => answer(api.GET("/api/models/{name}/{version}", { params: { path } })), [path.name, path.version]);
  return (
    <>
      <h1>{path.name}/{path.version}</h1>
      <Shown of={page} what="the model">
        {(model) => (
          <div class="columns">
            <section>
              <p>The gate: <Outcome outcome={model.row.outcome} />; alias <b>{model.row.alias}</b>{model.replaced && `, after version ${model.replaced}`}. <Link to={`/models/${encodeURIComponent(path.name)}/${path.version}/card`}>Model card</Link></p>
              <Checks checks={model.checks} />
              <Tasks tasks={model.tasks} />
            </section>
            <section>
              <Training model={model} />
              <Lineage model={model} />
            </section>
          </div>
        )}
      </Shown>
    </>
  );
}

export function Checks({ checks }: { checks: Page["checks"] }) {
  return (
    <table>
      <caption class="quiet">Criteria of the gate</caption>
      <thead><tr><th scope="col">Stands</th><th scope="col">Why</th></tr></thead>
      <tbody>{checks.map((one) => <tr key={one.name}><td><Outcome outcome={one.stands} /></td><td>{one.reason}</td></tr>)}</tbody>
    </table>
  );
}

export function Tasks({ tasks }: { tasks: Page["tasks"] }) {
  if (tasks.length === 0) return null;
  return (
    <table>
      <caption class="quiet">Solved, with exact bounds</caption>
      <thead><tr><th scope="col">Task</th><th scope="col">Solved</th><th scope="col">Bounds</th><th scope="col"><span class="quiet">0 to 100 %</span></th></tr></thead>
      <tbody>
        {tasks.map((one) => (
          <tr key={one.task}>
            <td>{one.task}</td>
            <td>{one.successes} of {one.trials}</td>
            <td>{percent(one.low)} to {percent(one.high)} ({percent(one.confidence)})</td>
            <td><Range low={one.low} high={one.high} at={one.trials ? one.successes / one.trials : 0} /></td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Training({ model }: { model: Page }) {
  const path = { name: model.row.name, version: String(model.row.version) };
  const curves = useResource(() => answer(api.GET("/api/models/{name}/{version}/curves", { params: { path } })), [path.name, path.version]);
  return (
    <>
      <h2>Training</h2>
      <p>{model.train_steps} steps, last loss {model.final_loss.toPrecision(4)}; run {model.tracker_run ? <Link to={`/runs?of=${encodeURIComponent(model.tracker_run)}`}>{model.tracker_run}</Link> : "without a record"} in MLflow</p>
      <Shown of={curves} what="curves">
        {({ curves: lines }) => <>{lines.filter((line) => line.name.endsWith("loss")).map((line) => <Curves key={line.name} title={line.name} x={line.steps} lines={[{ name: line.name, y: line.values }]} />)}</>}
      </Shown>
    </>
  );
}

function Lineage({ model }: { model: Page }) {
  const facts: readonly (readonly [string, string])[] = [["checkpoint", model.checkpoint_digest], ["contract", model.row.contract_id], ["data set", model.row.dataset_version], ...Object.entries(model.lineage)];
  return (
    <>
      <h2>Made of</h2>
      <p><Link to={lineageOf(`${model.row.name}/${model.row.version}`)}>Its lineage, and the robots that run it</Link></p>
      <dl class="facts">{facts.map(([name, value]) => [<dt key={`${name}-t`}>{name}</dt>, <dd key={`${name}-d`}>{value}</dd>])}</dl>
    </>
  );
}
