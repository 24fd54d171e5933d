// One camera at one frame: the image, its depth where there is some, the trace, and points that a person sets on it.
import { useEffect, useRef, useState } from "preact/hooks";
import { Pointing, type Spot, Way } from "../../ui/pointing";

interface ViewProps {
  address: (number: number, what?: "frame" | "depth") => string;
  camera: string;
  number: number;
  count: number;
  hasDepth: boolean;
  /** Points of 0 to 255, -1 after the last one. */
  trace: readonly number[];
  /** Points that are being set, as shares of the image's width and height; null: none are set now. */
  drawn: readonly Spot[] | null;
  add: (spot: Spot, size: { width: number; height: number }) => void;
}

const AHEAD = 3;

export function CameraView({ address, camera, number, count, hasDepth, trace, drawn, add }: ViewProps) {
  const image = useRef<HTMLImageElement>(null);
  const [failure, setFailure] = useState("");
  const [showsDepth, setShowsDepth] = useState(false);
  useEffect(() => {
    for (let next = number + 1; next <= Math.min(number + AHEAD, count - 1); next += 1) new Image().src = address(next);
  }, [camera, number, count]);
  const set = (spot: Spot) => {
    const shown = image.current;
    if (shown) add(spot, { width: shown.naturalWidth, height: shown.naturalHeight });
  };
  const spots: Spot[] = [];
  for (let n = 0; n + 1 < trace.length; n += 2) if ((trace[n] ?? -1) >= 0) spots.push({ x: (trace[n] ?? 0) / 255, y: (trace[n + 1] ?? 0) / 255 });
  return (
    <figure class="camera">
      <figcaption>{camera} <span class="quiet">frame {number} of {count}</span>{hasDepth && <label class="check"><input type="checkbox" checked={showsDepth} onChange={() => setShowsDepth(!showsDepth)} /> depth</label>}</figcaption>
      <div class="picture">
        <img ref={image} src={address(number)} alt={`${camera}, frame ${number}`} draggable={false} onError={() => setFailure("This frame cannot be shown.")} onLoad={() => setFailure("")} />
        <svg viewBox="0 0 1 1" preserveAspectRatio="none" aria-hidden="true">
          <Way spots={spots} name="predicted" />
        </svg>
        {drawn !== null && <Pointing label={`Points on ${camera}`} spots={drawn} add={set} />}
      </div>
      {failure && <p class="failure" role="alert">{failure}</p>}
      {showsDepth && <img class="depth" src={address(number, "depth")} alt={`depth of ${camera}, frame ${number}: near is bright`} />}
    </figure>
  );
}
