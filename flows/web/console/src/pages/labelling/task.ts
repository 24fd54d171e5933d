// What a person is asked of a frame, and what the person says.
import type { components } from "../../api/schema";

export type What = components["schemas"]["LabelAnswer"]["what"];
export type Task = components["schemas"]["LabelTask"];
export type Said = Partial<Pick<components["schemas"]["LabelAnswer"], "trace" | "abstained">> & { point?: readonly [number, number] };

export function frameAddress(place: string, asked: Task, frame: number): string {
  return `/api/episode/frame?${new URLSearchParams({ place, episode: asked.episode, camera: asked.camera, number: String(frame), form: "png" })}`;
}
