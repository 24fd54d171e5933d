// The model card of a version: what one reads before it is used, and what is not known of it. It prints as one document.
import type { ComponentChildren } from "preact";
import { answer, api } from "../../api/client";
import type { components } from "../../api/schema";
import { lineageOf } from "../../app/address";
import type { PageProps } from "../../app/pages";
import { Link } from "../../ui/link";
import { percent } from "../../ui/range";
import { Shown, useResource } from "../../ui/resource";
import { Checks, Tasks } from "./model_page";
import { Outcome } from "./outcome";

type Card = components["schemas"]["ModelCard"];
type Robot = components["schemas"]["CardRobot"];

export function CardPage({ parts }: PageProps) {
  const path = { name: parts["name"] ?? "", version: parts["version"] ?? "" };
  const card = useResource(() => answer(api.GET("/api/models/{name}/{version}/card", { params: { path } })), [path.name, path.version]);
  return (
    <>
      <h1>Model card: {path.name}/{path.version}</h1>
      <Shown of={card} what="the card">{(found) => <Whole card={found} />}</Shown>
    </>
  );
}

function Whole({ card }: { card: Card }) {
  const name = `${card.name}/${card.version}`;
  return (
    <>
      <p>The gate: <Outcome outcome={card.outcome} />. <Link to={`/models/${encodeURIComponent(card.name)}/${card.version}`}>Its page</Link>, <Link to={lineageOf(name)}>its lineage and robots</Link></p>
      <section aria-label="Not known" class="rollout">
        <h2>What is not known</h2>
        <ul>{card.unknown.map((sentence) => <li key={sentence}>{sentence}</li>)}</ul>
      </section>
      <div class="columns">
        <section aria-label="Robot">{card.robots.map((robot) => <OneRobot key={robot.contract_id} robot={robot} />)}</section>
        <section aria-label="Data and training"><Data card={card} /></section>
      </div>
      <section aria-label="Evaluation">
        <h2>Evaluation</h2>
        <Tasks tasks={card.tasks} />
        {card.evaluations.map((one) => (
          <Facts key={one.body} facts={[["embodiment", one.body], ["held-out error, of that of the mean action", one.held_out_error?.toPrecision(3) ?? ""], ["actions that change with the image", one.image_swap_change === null ? "" : percent(one.image_swap_change)], ...Object.entries(one.protocol)]} />
        ))}
        <Checks checks={card.checks} />
      </section>
    </>
  );
}

function OneRobot({ robot }: { robot: Robot }) {
  return (
    <>
      <h2>Robot: {robot.embodiment}</h2>
      <Facts facts={[["contract", robot.contract_id], ["control rate", `${robot.control_hz} Hz, chunks of ${robot.chunk_length} actions`], ["reasoning", robot.reasoning.join(", ")], ["cameras", robot.cameras.map((one) => `${one.name} ${one.width} x ${one.height}`).join(", ")], ["sentences", robot.templates.join("; ")], ["words", robot.words.length ? robot.words.join(", ") : "any text"]]} />
      <Dimensions title="Actions" rows={robot.action} />
      <Dimensions title="Readings of the robot" rows={robot.proprio} />
    </>
  );
}

function Dimensions({ title, rows }: { title: string; rows: Robot["action"] }) {
  return (
    <table>
      <caption class="quiet">{title}</caption>
      <thead><tr><th scope="col">Dimension</th><th scope="col">Unit</th><th scope="col">From</th><th scope="col">To</th><th scope="col">Meant</th></tr></thead>
      <tbody>{rows.map((one) => <tr key={one.name}><td>{one.name}</td><td>{one.unit}</td><td>{one.low}</td><td>{one.high}</td><td>{one.mode}</td></tr>)}</tbody>
    </table>
  );
}

function Data({ card }: { card: Card }) {
  const { data } = card;
  return (
    <>
      <h2>Data</h2>
      {data && (
        <>
          <Facts facts={[["data set", <Link to={lineageOf(`data set:${data.version}`)}>{data.name} ({data.version.slice(0, 16)})</Link>], ["episodes", String(data.episodes)], ["frames", `${data.frames}: ${data.train_frames} to train, ${data.validation_frames} held out`], ...Object.entries(data.annotators).map(([what, version]): Fact => [`labels of ${what}`, <Link to={lineageOf(`annotator:${version}`)}>{version.slice(0, 60)}</Link>])]} />
          {data.sources.length > 0 && (
            <table>
              <caption class="quiet">What was trained on, by source</caption>
              <thead><tr><th scope="col">Source</th><th scope="col">Episodes</th><th scope="col">Frames</th><th scope="col">Share</th></tr></thead>
              <tbody>{data.sources.map((one) => <tr key={one.source}><td>{one.source}</td><td>{one.episodes}</td><td>{one.frames}</td><td>{percent(one.share)}</td></tr>)}</tbody>
            </table>
          )}
        </>
      )}
      <h2>Training</h2>
      <Facts facts={[["recipe", card.recipe && <Link to={lineageOf(`recipe:${card.recipe}`)}>{card.recipe.slice(0, 16)}</Link>], ["steps", String(card.steps)], ...Object.entries(card.measured).map(([name, value]): Fact => [name.replaceAll("_", " "), value.toPrecision(4)])]} />
    </>
  );
}

type Fact = [string, ComponentChildren];

/** Names and what is known; what is empty is left out. */
function Facts({ facts }: { facts: readonly Fact[] }) {
  return <dl class="facts">{facts.filter(([, value]) => value).map(([name, value]) => [<dt key={`${name}-t`}>{name}</dt>, <dd key={`${name}-d`}>{value}</dd>])}</dl>;
}
