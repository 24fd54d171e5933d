// How often second labels contradict the first ones, with its interval.
import { answer, api } from "../../api/client";
import { Shown, useResource } from "../../ui/resource";
import type { What } from "./task";

export function Agreement({ place, what }: { place: string; what: What }) {
  const found = useResource(() => answer(api.GET("/api/label/agreement", { params: { query: { place, what } } })), [place, what]);
  return (
    <Shown of={found} what="the agreement">
      {(told) => told.estimate === null || told.low === null || told.high === null ? <p class="quiet">The label error is not measured: {told.why}</p> : (
        <p>
          Label error at most about <b>{percent(told.estimate)}</b>, 95 % interval {percent(told.low)} to {percent(told.high)}, of {told.frames} frames by {told.people} people; {told.abstained} could not be told{told.pairs > 0 && <>; people contradict each other in {told.contradict} of {told.pairs}</>}. <span class="quiet">Wrong is what is {told.wrong}.</span>
        </p>
      )}
    </Shown>
  );
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}
