// The sentence that the policy acts on; the person with the pen may give another one.
import { useState } from "preact/hooks";
import type { Desk } from "./orders";

export function Instruction({ sentence, mayChange, desk }: { sentence: string; mayChange: boolean; desk: Desk }) {
  const [draft, setDraft] = useState<string | null>(null);
  if (!mayChange) return <p>Instruction: <q>{sentence}</q></p>;
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    if (draft && (await desk.give({ kind: "instruct", sentence: draft }))) setDraft(null);
  };
  return (
    <form class="bar" onSubmit={(event) => void submit(event)}>
      <label>Instruction <input class="long" value={draft ?? sentence} maxLength={500} onInput={(event) => setDraft(event.currentTarget.value)} /></label>
      <button type="submit" disabled={!draft || draft === sentence || desk.isBusy}>Give it</button>
    </form>
  );
}
