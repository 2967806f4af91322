// Small charts of one hour, minute by minute. What they show is said in words as well, for those who do not see them.

import { useEffect, useRef } from 'react';
import uPlot from 'uplot';

export interface Series {
  /** A custom property of the style sheet, as `--good`. */
  colour: string;
  /** One value for each minute; null where nothing is known. */
  values: (number | null)[];
  /** A bar for each minute instead of a line. */
  bars?: boolean;
}

const WIDTH = 120;
const HEIGHT = 32;

const dark = matchMedia('(prefers-color-scheme: dark)');

/** Lines over the same minutes, drawn again when the values or the colours of the page change. */
export default function Sparkline({ series, label }: { series: Series[]; label: string }) {
  const place = useRef<HTMLDivElement>(null);
  const chart = useRef<uPlot | null>(null);
  const shape = series.map(({ colour, bars }) => `${colour}${bars}`).join();

  useEffect(() => {
    const element = place.current;
    if (!element) return;
    const colour =
      (name: string, opacity = 1) =>
      () => {
        const found = getComputedStyle(element).getPropertyValue(name).trim();
        return opacity === 1 ? found : `color-mix(in srgb, ${found} ${opacity * 100}%, transparent)`;
      };
    const drawn = new uPlot(
      {
        width: WIDTH,
        height: HEIGHT,
        padding: [2, 0, 2, 0],
        legend: { show: false },
        cursor: { show: false },
        select: { show: false, left: 0, top: 0, width: 0, height: 0 },
        axes: [{ show: false }, { show: false }],
        scales: { x: { time: false }, y: { range: (_, __, most) => [0, Math.max(1, most ?? 1)] } },
        series: [
          {},
          ...series.map(({ colour: name, bars }) => ({
            stroke: colour(name),
            width: bars ? 0 : 1.5,
            points: { show: false },
            ...(bars && { fill: colour(name, 0.5), paths: uPlot.paths.bars?.({ size: [0.9, 6] }) }),
          })),
        ],
      },
      dataOf(series),
      element,
    );
    chart.current = drawn;
    const redraw = () => drawn.redraw(false, false);
    const theme = new MutationObserver(redraw);
    theme.observe(document.documentElement, { attributeFilter: ['data-theme'] });
    dark.addEventListener('change', redraw);
    return () => {
      theme.disconnect();
      dark.removeEventListener('change', redraw);
      drawn.destroy();
      chart.current = null;
    };
  }, [shape]);

  useEffect(() => chart.current?.setData(dataOf(series)), [series]);
  return <div className="sparkline" ref={place} role="img" aria-label={label} />;
}

function dataOf(series: Series[]): uPlot.AlignedData {
  const length = series[0]?.values.length ?? 0;
  return [Array.from({ length }, (_, minute) => minute), ...series.map(({ values }) => values)];
}
