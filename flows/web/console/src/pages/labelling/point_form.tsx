// Where the gripper is in one frame: one point, or that it is not there.
import { useKeys } from "../../app/keys";
import { Pointing } from "../../ui/pointing";
import { frameAddress, type Said, type Task } from "./task";

export function PointForm({ place, asked, say }: { place: string; asked: Task; say: (said: Said) => void }) {
  useKeys([
    { key: "n", does: "it is not in the image", run: () => say({}) },
    { key: "a", does: "it cannot be told", run: () => say({ abstained: true }) },
  ]);
  return (
    <figure class="camera">
      <div class="picture">
        <img src={frameAddress(place, asked, asked.frame)} alt={`${asked.camera}: click where the gripper is`} draggable={false} />
        <Pointing label="Where the gripper is" spots={[]} add={({ x, y }) => say({ point: [x, y] })} />
      </div>
      <div class="bar">
        <button type="button" title="n" onClick={() => say({})}>It is not in the image</button>
        <button type="button" title="a" onClick={() => say({ abstained: true })}>It cannot be told</button>
      </div>
    </figure>
  );
}
