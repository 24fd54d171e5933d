// The graph as boxes and lines. The lists below it say the same to who does not see it.
import type { components } from "../../api/schema";
import { go } from "../../app/address";
import { type Box, HEIGHT, WIDTH, type Way, laidOut } from "./layout";
import { lineageOf } from "./lineage_page";

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

function curve({ from, to }: Way): string {
  const [x, y, right, down] = [from.x + WIDTH, from.y + HEIGHT / 2, to.x, to.y + HEIGHT / 2];
  const bend = Math.max(30, (right - x) / 2);
  return `M${x} ${y} C${x + bend} ${y} ${right - bend} ${down} ${right} ${down}`;
}
