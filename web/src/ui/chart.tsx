// A small line chart over time. The drawing library comes only when the first chart is shown.
import { useEffect, useRef } from 'react';
import type uPlot from 'uplot';

export interface Series {
  label: string;
  values: (number | null)[];
}

interface Props {
  label: string;
  times: number[];
  series: Series[];
  format(value: number): string;
  height?: number;
}

const SHORTEST = 180;
const COLOURS = ['--chart-1', '--chart-2', '--chart-3', '--chart-4'];
const colour = (name: string) => getComputedStyle(document.documentElement).getPropertyValue(name).trim() || '#888';

function optionsFor(width: number, { series, format, height = 150 }: Props): uPlot.Options {
  const axis = { stroke: colour('--text-faint'), grid: { stroke: colour('--line'), width: 1 }, ticks: { show: false }, font: '11px system-ui, sans-serif' };
  return {
    width, height,
    cursor: { y: false },
    legend: { live: true },
    // At least some minutes wide: a history that has just begun would else be a single tick.
    scales: { x: { range: (_plot, low, high) => [Math.min(low, high - SHORTEST), high] }, y: { range: (_plot, _low, high) => [0, high > 0 ? high * 1.15 : 1] } },
    axes: [{ ...axis, space: 70 }, { ...axis, size: 62, values: (_plot, splits) => splits.map(format) }],
    series: [{}, ...series.map((entry, index) => ({ label: entry.label, stroke: colour(COLOURS[index % COLOURS.length]!), width: 2, dash: index > 0 && /limit|request/i.test(entry.label) ? [5, 4] : undefined, points: { show: entry.values.length < 3, size: 5 }, value: (_plot: uPlot, value: number | null) => (value === null || value === undefined ? '–' : format(value)) }))],
  };
}

export function Chart(props: Props) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | undefined>(undefined);
  const latest = useRef(props);
  const shape = props.series.map((entry) => entry.label).join('\n');
  useEffect(() => {
    latest.current = props;
    plot.current?.setData([props.times, ...props.series.map((entry) => entry.values)] as uPlot.AlignedData);
  });
  useEffect(() => {
    let alive = true;
    let observer: ResizeObserver | undefined;
    void Promise.all([import('uplot'), import('uplot/dist/uPlot.min.css')]).then(([{ default: UPlot }]) => {
      const element = box.current;
      if (!alive || !element) return;
      const { times, series } = latest.current;
      plot.current = new UPlot(optionsFor(element.clientWidth || 300, latest.current), [times, ...series.map((entry) => entry.values)] as uPlot.AlignedData, element);
      observer = new ResizeObserver(() => plot.current?.setSize({ width: element.clientWidth, height: latest.current.height ?? 150 }));
      observer.observe(element);
    });
    return () => {
      alive = false;
      observer?.disconnect();
      plot.current?.destroy();
      plot.current = undefined;
    };
  }, [shape]);
  const last = props.series.map((entry) => `${entry.label} ${props.format(entry.values.at(-1) ?? NaN)}`).join(', ');
  return <figure className="chart" aria-label={`${props.label}: ${last}`}><figcaption>{props.label}</figcaption><div ref={box} /></figure>;
}
