// A share with its interval, as a bar from 0 to 100 %; the numbers stand beside it.

export function Range({ low, high, at }: { low: number; high: number; at: number }) {
  return <span class="bars" aria-hidden="true"><i style={{ left: `${100 * low}%`, width: `${100 * (high - low)}%` }} /><b style={{ left: `${100 * at}%` }} /></span>;
}

export function percent(share: number): string {
  return `${(100 * share).toFixed(0)} %`;
}
