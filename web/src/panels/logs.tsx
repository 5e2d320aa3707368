// Logs of a pod or of all pods of a workload, merged by time: follow, previous, search, timestamps, download.
import { useEffect, useMemo, useRef, useState } from 'react';
import { streamLog } from '../api/log_stream';
import type { KubeObject } from '../api/objects';
import { useList } from '../api/use_list';
import { download } from '../lib/download';
import { LogBuffer, matcher, type LogLine } from '../lib/logs';
import { Button, Empty, ErrorNote, Note } from '../ui/basics';
import { LogView } from './log_view';
import { podsPath } from './pods_of';
import type { PanelProps } from './table';

interface Source {
  pod: string;
  namespace: string;
  container: string;
}

const MOST_SOURCES = 20;
const DRAW_EVERY = 100;

function sourcesOf(pods: readonly KubeObject[]): Source[] {
  return pods.flatMap((pod) => ([...(pod.spec?.initContainers ?? []), ...(pod.spec?.containers ?? []), ...(pod.spec?.ephemeralContainers ?? [])] as { name: string }[]).map((container) => ({ pod: pod.metadata.name, namespace: pod.metadata.namespace!, container: container.name })));
}

const nameOf = (source: Source) => `${source.pod}/${source.container}`;

/** Streams of all sources into one buffer; the lines are handed to React a few times a second, however many come. */
function useLogs(sources: Source[], options: { follow: boolean; previous: boolean; tailLines: number }) {
  const [lines, setLines] = useState<LogLine[]>([]);
  const [states, setStates] = useState<Record<string, string | undefined>>({});
  const buffer = useRef(new LogBuffer());
  const key = JSON.stringify([sources, options]);
  useEffect(() => {
    const current = new LogBuffer();
    buffer.current = current;
    setLines([]);
    setStates({});
    let timer: ReturnType<typeof setTimeout> | undefined;
    const draw = () => {
      timer = undefined;
      setLines(current.lines);
    };
    const [wanted, asked] = JSON.parse(key) as [Source[], typeof options];
    const stops = wanted.map((source) => streamLog({ ...source, ...asked }, {
      lines: (raw) => {
        current.append(nameOf(source), raw);
        timer ??= setTimeout(draw, DRAW_EVERY);
      },
      state: (ended) => setStates((old) => ({ ...old, [nameOf(source)]: ended })),
    }));
    return () => {
      clearTimeout(timer);
      for (const stop of stops) stop();
    };
  }, [key]);
  const clear = () => {
    buffer.current.clear();
    setLines([]);
  };
  return { lines, states, clear, dropped: buffer.current.dropped };
}

export default function LogsPanel({ resource, object }: PanelProps) {
  const isPod = resource.resource === 'pods';
  const list = useList(isPod ? undefined : podsPath(resource, object));
  const all = useMemo(() => sourcesOf(isPod ? [object] : list.items), [isPod, object, list.items]);
  const [picked, setPicked] = useState('');
  const [options, setOptions] = useState({ follow: true, previous: false, tailLines: 1000 });
  const [show, setShow] = useState({ timestamps: false, wrap: false, onlyMatches: false });
  const [search, setSearch] = useState('');
  const wanted = all.filter((source) => !picked || nameOf(source) === picked);
  const { lines, states, clear, dropped } = useLogs(wanted.slice(0, MOST_SOURCES), options);
  const found = useMemo(() => (search ? lines.filter((line) => matcher(search)(line.text)).length : undefined), [lines, search]);
  const many = wanted.length > 1;
  const save = () => download(`${object.metadata.name}.log`, lines.map((line) => `${many ? `${line.source} ` : ''}${line.time ? `${line.time} ` : ''}${line.text}\n`).join(''));
  const toggle = (label: string, on: boolean, change: (on: boolean) => void) => <label><input type="checkbox" checked={on} onChange={(event) => change(event.target.checked)} />{label}</label>;
  const problems = Object.entries(states).filter(([, text]) => text && text !== 'The log ended.');
  if (!all.length) return list.error ? <ErrorNote error={list.error} /> : <Empty title={list.phase === 'loading' ? 'Reading pods…' : 'There are no pods to read logs of.'} />;
  return (
    <div className="logs">
      <div className="inline">
        <select aria-label="Container" value={picked} onChange={(event) => setPicked(event.target.value)}><option value="">{all.length > 1 ? `All ${all.length} containers` : nameOf(all[0]!)}</option>{all.length > 1 && all.map((source) => <option key={nameOf(source)} value={nameOf(source)}>{isPod ? source.container : nameOf(source)}</option>)}</select>
        <select aria-label="Lines to begin with" value={options.tailLines} onChange={(event) => setOptions({ ...options, tailLines: Number(event.target.value) })}>{[100, 1000, 10_000, 50_000].map((count) => <option key={count} value={count}>last {count}</option>)}</select>
        {toggle('Follow', options.follow && !options.previous, (follow) => setOptions({ ...options, follow }))}
        {toggle('Previous instance', options.previous, (previous) => setOptions({ ...options, previous, follow: !previous }))}
        {toggle('Timestamps', show.timestamps, (timestamps) => setShow({ ...show, timestamps }))}
        {toggle('Wrap', show.wrap, (wrap) => setShow({ ...show, wrap }))}
        <span className="grow" />
        <input type="search" aria-label="Search the log" placeholder="Search, or /regular expression/" value={search} onChange={(event) => setSearch(event.target.value)} />
        {found !== undefined && <span className="faint" role="status">{found} lines</span>}
        {search && toggle('Only these', show.onlyMatches, (onlyMatches) => setShow({ ...show, onlyMatches }))}
        <Button onClick={clear}>Clear</Button><Button reason={lines.length ? undefined : 'There are no lines.'} onClick={save}>Download</Button>
      </div>
      {wanted.length > MOST_SOURCES && <Note tone="warn">The first {MOST_SOURCES} of {wanted.length} containers are read. Choose one to read another.</Note>}
      {problems.map(([source, text]) => <Note key={source} tone="warn">{source}: {text}</Note>)}
      {dropped > 0 && <p className="faint">{dropped} older lines were dropped to keep this page light.</p>}
      <LogView lines={lines} search={search} sources={many} {...show} />
      <p className="faint" role="status">{lines.length} lines{wanted.length && wanted.every((source) => states[nameOf(source)] === 'The log ended.') ? ', ended' : ''}</p>
    </div>
  );
}
