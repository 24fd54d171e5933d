// Orders to the fleet: a button that asks for a reason first, and what came of the last order.
import type { ComponentChildren } from "preact";
import { useRef, useState } from "preact/hooks";
import type { Answer } from "../../api/client";
import type { components } from "../../api/schema";
import { useKeys } from "../../app/keys";

type Done = components["schemas"]["FleetDone"];

export interface FleetDesk {
  give: (order: Promise<Answer<Done>>) => Promise<void>;
  said: string;
  isBad: boolean;
}

/** again: reads the page anew, for an order changes it. */
export function useFleetDesk(again: () => void): FleetDesk {
  const [said, setSaid] = useState({ text: "", isBad: false });
  const give: FleetDesk["give"] = async (order) => {
    const came = await order;
    setSaid("reason" in came ? { text: came.reason, isBad: true } : { text: came.data.told, isBad: false });
    again();
  };
  return { give, said: said.text, isBad: said.isBad };
}

interface OrderButtonProps {
  name: string;
  /** What it does, in a sentence. */
  does: string;
  desk: FleetDesk;
  give: (reason: string, form: FormData) => Promise<Answer<Done>>;
  needsReason?: boolean;
  isStop?: boolean;
  letter?: string;
  /** Further fields of the form. */
  children?: ComponentChildren;
}

export function OrderButton({ name, does, desk, give, needsReason = false, isStop = false, letter, children }: OrderButtonProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  const open = () => dialog.current?.showModal();
  useKeys(letter ? [{ key: letter, does, run: open }] : []);
  const submit = (event: SubmitEvent) => {
    const form = event.currentTarget as HTMLFormElement;
    const given = new FormData(form);
    form.reset();
    void desk.give(give(String(given.get("reason") ?? "").trim(), given));
  };
  return (
    <>
      <button type="button" class={isStop ? "stop" : undefined} onClick={open} title={letter}>{name} ...</button>
      <dialog ref={dialog} aria-label={name}>
        <form method="dialog" onSubmit={submit}>
          <h2>{name}?</h2>
          <p>{does}</p>
          {children}
          <label class="wide">Why{needsReason ? "" : " (may be empty)"}<input name="reason" class="long" maxLength={400} required={needsReason} pattern={needsReason ? ".*\\S.*" : undefined} /></label>
          <div class="bar">
            <button type="submit" class={isStop ? "stop" : "main"}>{name}</button>
            <button type="button" onClick={() => dialog.current?.close()}>Cancel</button>
          </div>
        </form>
      </dialog>
    </>
  );
}
