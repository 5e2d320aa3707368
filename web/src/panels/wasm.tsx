// What the component of each container is and what it was granted: imports and exports of its world, who granted each
// import, limits, instances, times, and the last trap. From the computed group node.windlass.dev, which may be absent.
import { getObject } from '../api/client';
import { hasGroup, useCatalogue } from '../api/discovery';
import { formatBytes, formatCpu } from '../lib/quantity';
import { Button, Empty, ErrorNote, Facts, Note, RelativeTime, Section, Spinner, Tag } from '../ui/basics';
import { useRemote } from '../ui/use_remote';
import type { PanelProps } from './table';

export interface ComponentContainer {
  name: string;
  image?: string;
  digest?: string;
  world?: string;
  imports?: { interface: string; granted: boolean; by?: string }[];
  exports?: string[];
  limits?: { memoryBytes?: number; cpuMillis?: number; requestsPerInstance?: number; egress?: string };
  instances?: { current?: number; started?: number };
  compileMilliseconds?: number;
  startMicroseconds?: number;
  lastTrap?: { time?: string; message?: string; backtrace?: string | string[] };
}

const GROUP = 'node.windlass.dev';
const WORLDS: Record<string, string> = { 'wasi:cli/command': 'a process that runs until it ends', 'wasi:http/proxy': 'answers requests; holds no instance while idle' };

function Trap({ trap }: { trap: NonNullable<ComponentContainer['lastTrap']> }) {
  const backtrace = Array.isArray(trap.backtrace) ? trap.backtrace.join('\n') : trap.backtrace;
  return <Note tone="bad"><strong>Last trap</strong>, <RelativeTime time={trap.time} suffix=" ago" />: <span className="pre">{trap.message}</span>{backtrace && <details open><summary>Backtrace</summary><pre className="code-block" tabIndex={0}>{backtrace}</pre></details>}</Note>;
}

function Imports({ imports }: { imports: NonNullable<ComponentContainer['imports']> }) {
  if (!imports.length) return <Empty title="It imports nothing." />;
  return (
    <div className="scroll-x" tabIndex={0}><table className="plain">
      <thead><tr><th>Import</th><th>Granted</th><th>By</th></tr></thead>
      <tbody>{imports.map((entry) => <tr key={entry.interface}><td><code>{entry.interface}</code></td><td><Tag tone={entry.granted ? 'ok' : 'bad'}>{entry.granted ? 'yes' : 'no'}</Tag></td><td>{entry.by ?? <span className="faint">{entry.granted ? '' : 'nothing in the pod grants it'}</span>}</td></tr>)}</tbody>
    </table></div>
  );
}

const amount = (value: number | undefined, format: (value: number) => string) => (value === undefined ? undefined : format(value));

export function ComponentCard({ container }: { container: ComponentContainer }) {
  return (
    <Section title={<>{container.name} {container.world && <Tag title={WORLDS[container.world]}>{container.world}</Tag>}</>}>
      <div className="stack">
        {container.lastTrap && <Trap trap={container.lastTrap} />}
        <Facts facts={[
          ['Digest', container.digest && <code>{container.digest}</code>],
          ['Instances now', container.instances?.current],
          ['Instances started', container.instances?.started],
          ['Compiled in', container.compileMilliseconds !== undefined && `${container.compileMilliseconds} ms`],
          ['Started in', container.startMicroseconds !== undefined && `${container.startMicroseconds} µs`],
          ['Memory limit', amount(container.limits?.memoryBytes, formatBytes)],
          ['CPU limit', amount(container.limits?.cpuMillis, (millis) => formatCpu(millis / 1000))],
          ['Requests per instance', container.limits?.requestsPerInstance || undefined],
          ['May connect to', container.limits?.egress],
        ]} />
        <Imports imports={container.imports ?? []} />
        <div><div className="faint">Exports</div>{container.exports?.length ? <ul className="labels">{container.exports.map((name) => <li key={name}><Tag>{name}</Tag></li>)}</ul> : 'none'}</div>
      </div>
    </Section>
  );
}

export default function WasmPanel({ object }: PanelProps) {
  const { all, phase } = useCatalogue();
  const served = hasGroup(all, GROUP);
  const { name, namespace, resourceVersion } = object.metadata;
  const path = `/apis/${GROUP}/v1/namespaces/${encodeURIComponent(namespace!)}/podcomponents/${encodeURIComponent(name)}`;
  // Asked anew when the pod changes: computed objects have no watch.
  const components = useRemote(served ? `${path} ${resourceVersion}` : undefined, (signal) => getObject(path, signal));
  if (phase === 'ready' && !served) return <Note>This server does not serve {GROUP}, so what components import and were granted is not known here.</Note>;
  if (components.error) return <ErrorNote what="The node did not say." error={components.error} retry={components.reload} />;
  if (!components.value) return <Spinner label="Asking the node" />;
  const containers = (components.value.containers ?? []) as ComponentContainer[];
  return (
    <div className="stack">
      <div className="inline"><span className="faint">As of <RelativeTime time={components.value.timestamp as string} suffix=" ago" /></span><Button onClick={components.reload}>Ask again</Button></div>
      {containers.length ? containers.map((container) => <ComponentCard key={container.name} container={container} />) : <Empty title="No container of this pod is a component." />}
    </div>
  );
}
