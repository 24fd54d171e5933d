// The graph as boxes and lines. The lists below it say the same to who does not see it.
import type { components } from "../../api/schema";
import { go, lineageOf } from "../../app/address";
import { type Box, HEIGHT, WIDTH, type Way, laidOut } from "./layout";

export function LineagePicture({ page }: { page: components["schemas"]["LineagePage"] }) {
  const { boxes, ways, width, height } = laidOut(page);
  return (
    <div class="graph" tabIndex={0} role="img" aria-label={`Picture of ${page.things.length} things and ${page.links.length} links between them; the lists below say the same.`}>
      <svg aria-hidden="true" width={width + 4} height={height + 4} viewBox={`-2 -2 ${width + 4} ${height + 4}`}>
        {ways.map((way) => <path key={`${way.from.id} ${way.to.id}`} d={curve(way)}><title>{way.how}</title></path>)}
        {boxes.map((box) => <Thing key={box.id} box={box} />)}
      </svg>
    </div>
  );
}

function Thing({ box }: { box: Box }) {
  const open = box.count === 1 ? () => go(lineageOf(box.id)) : undefined;
  return (
    <g class={`thing ${box.kind.replace(" ", "-")}${box.isStart ? " start" : ""}`} transform={`translate(${box.x} ${box.y})`} onClick={open}>
      <title>{box.words}</title>
      <rect width={WIDTH} height={HEIGHT} rx={6} />
      <text class="kind" x={10} y={17}>{box.count > 1 ? "cells" : box.kind}</text>
      <text x={10} y={35}>{box.words}</text>
    </g>
  );
}

function curve({ from, to, past }: Way): string {
  const middle = HEIGHT / 2;
  let [x, y] = [from.x + WIDTH, from.y + middle];
  let line = `M${x} ${y}`;
  for (const next of [...past, to]) {
    const bend = Math.max(30, (next.x - x) / 2);
    line += ` C${x + bend} ${y} ${next.x - bend} ${next.y + middle} ${next.x} ${next.y + middle}`;
    [x, y] = [next.x + WIDTH, next.y + middle];
    if (next !== to) line += ` H${x}`;
  }
  return line;
}
