// A small line chart over time. The drawing library comes only when the first chart is shown.
import { useEffect, useRef } from 'react';
import type uPlot from 'uplot';
import { useTheme } from './theme';

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
/** Series that are one value throughout: drawn as dashes over the whole width. */
const FLAT = /limit|request/;
const COLOURS = ['--chart-1', '--chart-2', '--chart-3', '--chart-4'];

/** A colour of the design as it is drawn now: a canvas knows no variables, and a variable's own text names both themes. */
function colourIn(element: HTMLElement, name: string): string {
  element.style.color = `var(${name})`;
  const { color } = getComputedStyle(element);
  element.style.color = '';
  return color;
}

function optionsFor(element: HTMLElement, { series, format, height = 150 }: Props): uPlot.Options {
  const colour = (name: string) => colourIn(element, name);
  const axis = { stroke: colour('--text-faint'), grid: { stroke: colour('--line'), width: 1 }, ticks: { show: false }, font: '11px system-ui, sans-serif' };
  return {
    width: element.clientWidth || 300, height,
    cursor: { y: false },
    legend: { live: true },
    scales: { y: { range: (_plot, _low, high) => [0, high > 0 ? high * 1.15 : 1] } },
    axes: [{ ...axis, space: 70 }, { ...axis, size: 62, values: (_plot, splits) => splits.map(format) }],
    series: [{}, ...series.map((entry, index) => ({ label: entry.label, stroke: colour(COLOURS[index % COLOURS.length]!), width: 2, dash: index > 0 && FLAT.test(entry.label) ? [5, 4] : undefined, points: { show: entry.values.length < 3, size: 5 }, value: (_plot: uPlot, value: number | null) => (value === null || value === undefined ? '–' : format(value)) }))],
  };
}

/** At least some minutes wide: a history that has just begun would else be a single tick. */
function aligned({ times, series }: Props): uPlot.AlignedData {
  const last = times.at(-1) ?? Date.now() / 1000;
  const padded = (times[0] ?? Infinity) > last - SHORTEST;
  return [padded ? [last - SHORTEST, ...times] : times, ...series.map((entry) => (padded ? [FLAT.test(entry.label) ? entry.values[0] : null, ...entry.values] : entry.values))] as uPlot.AlignedData;
}

export function Chart(props: Props) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | undefined>(undefined);
  const latest = useRef(props);
  const theme = useTheme();
  const shape = props.series.map((entry) => entry.label).join('\n');
  useEffect(() => {
    latest.current = props;
    plot.current?.setData(aligned(props));
  });
  useEffect(() => {
    let alive = true;
    let observer: ResizeObserver | undefined;
    void Promise.all([import('uplot'), import('uplot/dist/uPlot.min.css')]).then(([{ default: UPlot }]) => {
      const element = box.current;
      if (!alive || !element) return;
      plot.current = new UPlot(optionsFor(element, latest.current), aligned(latest.current), element);
      observer = new ResizeObserver(() => plot.current?.setSize({ width: element.clientWidth, height: latest.current.height ?? 150 }));
      observer.observe(element);
    });
    return () => {
      alive = false;
      observer?.disconnect();
      plot.current?.destroy();
      plot.current = undefined;
    };
  }, [shape, theme]);
  const last = props.series.map((entry) => `${entry.label} ${props.format(entry.values.at(-1) ?? NaN)}`).join(', ');
  return <figure className="chart" aria-label={`${props.label}: ${last}`}><figcaption>{props.label}</figcaption><div ref={box} /></figure>;
}
