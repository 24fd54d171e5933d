// "Make a version": what was stated of a set becomes edits, which training can name.
import { useState } from "preact/hooks";
import { answer, api } from "../../api/client";

export function VersionForm({ place, name, done }: { place: string; name: string; done: () => void }) {
  const [told, setTold] = useState("");
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    const given = new FormData(event.currentTarget as HTMLFormElement);
    const body = { place, name: String(given.get("name")), why: String(given.get("why")), only_included: given.get("only") === "on" };
    const made = await answer(api.POST("/api/versions", { body }));
    if ("reason" in made) return setTold(made.reason);
    await api.POST("/api/places/read");
    done();
    const labels = made.data.corrections ? `; corrections of labels in ${made.data.corrections}` : "";
    setTold(`${made.data.edits.at(-1) ?? "nothing"}: ${made.data.episodes} episodes, ${made.data.left_out} left out${labels}. A recipe names it as a source of kind "edited".`);
  };
  return (
    <details class="version">
      <summary>Make a version of {name}</summary>
      <form class="bar" onSubmit={submit}>
        <label>Name<input name="name" required pattern="[A-Za-z0-9_.+\-]+" maxLength={80} /></label>
        <label>Why<input name="why" required maxLength={300} size={40} /></label>
        <label class="check"><input name="only" type="checkbox" /> only what was included</label>
        <button type="submit" class="main">Make it</button>
      </form>
      {told && <p role="status">{told}</p>}
    </details>
  );
}
