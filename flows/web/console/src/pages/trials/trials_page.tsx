// Studies whose trials a person leads at a page.
import { answer, api } from "../../api/client";
import { Link } from "../../ui/link";
import { Shown, useRefreshed, useResource } from "../../ui/resource";
import { Empty } from "../../ui/states";

const EVERY_MS = 3000;

export function TrialsPage() {
  const found = useResource(() => answer(api.GET("/api/trials")), []);
  useRefreshed(found, EVERY_MS);
  return (
    <>
      <h1>Trials</h1>
      <Shown of={found} what="studies">
        {({ studies }) => studies.length === 0 ? (
          <Empty what="No study on a robot is led from this page yet."><code>actwright study run loop --url candidate=URL --url champion=URL --phone {location.origin}</code> starts one.</Empty>
        ) : (
          <ul class="studies">
            {studies.map((one) => (
              <li key={one.study}>
                <Link to={`/trials/${one.study}`}>{one.tasks.join(", ")}</Link> <span class="quiet">{one.study}: {one.done} of at most {one.planned} trials{one.is_running ? "" : ", not running"}</span>
              </li>
            ))}
          </ul>
        )}
      </Shown>
    </>
  );
}
