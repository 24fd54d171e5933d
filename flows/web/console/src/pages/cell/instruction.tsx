// The sentence that the policy acts on; the person with the pen may give another one.
import { useRef, useState } from "preact/hooks";
import { useKeys } from "../../app/keys";
import type { Desk } from "./orders";

export function Instruction({ sentence, mayChange, desk }: { sentence: string; mayChange: boolean; desk: Desk }) {
  const [draft, setDraft] = useState<string | null>(null);
  const field = useRef<HTMLInputElement>(null);
  useKeys(mayChange ? [{ key: "i", does: "write another instruction", run: () => field.current?.select() }] : []);
  if (!mayChange) return <p>Instruction: <q>{sentence}</q></p>;
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    if (draft && (await desk.give({ kind: "instruct", sentence: draft }))) setDraft(null);
  };
  return (
    <form class="bar" onSubmit={(event) => void submit(event)}>
      <label>Instruction <input ref={field} class="long" title="i" value={draft ?? sentence} maxLength={500} onInput={(event) => setDraft(event.currentTarget.value)} /></label>
      <button type="submit" disabled={!draft || draft === sentence || desk.isBusy}>Give it</button>
    </form>
  );
}
