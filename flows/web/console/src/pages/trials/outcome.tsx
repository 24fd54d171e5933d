// What came of a trial: success or failure, and the stage that a failure reached. Nothing is sent before "Record".
import { useState } from "preact/hooks";
import type { components } from "../../api/schema";

type Now = components["schemas"]["TrialNow"];

export interface Outcome {
  success: boolean;
  progress: number;
}

export function OutcomeForm({ now, done }: { now: Now; done: (outcome: Outcome) => void }) {
  const [success, setSuccess] = useState<boolean | null>(null);
  const [progress, setProgress] = useState<number | null>(null);
  const outcome = success === null ? null : success ? { success, progress: 1 } : progress === null ? null : { success, progress };
  return (
    <section aria-label="Outcome">
      <p class="quiet">{now.rubric}.</p>
      <div class="pair">
        <button type="button" class="big" aria-pressed={success === true} onClick={() => setSuccess(true)}>Success</button>
        <button type="button" class="big" aria-pressed={success === false} onClick={() => setSuccess(false)}>Failure</button>
      </div>
      {success === false && (
        <fieldset class="ladder">
          <legend>Stage reached</legend>
          {now.stages.map((stage) => (
            <button type="button" key={stage.name} aria-pressed={progress === stage.progress} onClick={() => setProgress(stage.progress)}>{stage.name}</button>
          ))}
        </fieldset>
      )}
      <button type="button" class="big main" disabled={outcome === null} onClick={() => outcome && done(outcome)}>Record</button>
    </section>
  );
}
