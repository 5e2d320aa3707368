// CPU and memory of a pod or node over time, against what was requested and what it may use at most.
import { usePodHistory, useNodeUsage, type Sample } from '../api/metrics';
import type { KubeObject } from '../api/objects';
import { formatBytes, formatCpu, parseQuantity } from '../lib/quantity';
import { ErrorNote, Section, Spinner } from '../ui/basics';
import { Chart } from '../ui/chart';
import type { PanelProps } from './table';

interface Container {
  name: string;
  resources?: { requests?: Record<string, string>; limits?: Record<string, string> };
}

/** The sum over all containers, or undefined where one has none: then there is no bound. */
function bound(pod: KubeObject, field: 'requests' | 'limits', resource: string): number | undefined {
  const values = ((pod.spec?.containers ?? []) as Container[]).map((container) => parseQuantity(container.resources?.[field]?.[resource]));
  return values.some(Number.isNaN) ? undefined : values.reduce((sum, value) => sum + value, 0);
}

function UseChart({ label, history, pick, format, lines }: { label: string; history: Sample[]; pick: 'cpu' | 'memory'; format(value: number): string; lines: [string, number | undefined][] }) {
  const times = history.map((sample) => sample.time);
  const flat = lines.flatMap(([name, value]) => (value === undefined ? [] : [{ label: name, values: times.map(() => value) }]));
  return <Chart label={label} times={times} series={[{ label: 'used', values: history.map((sample) => sample[pick]) }, ...flat]} format={format} />;
}

function PodUse({ pod }: { pod: KubeObject }) {
  const { value, error } = usePodHistory(pod.metadata.namespace!, pod.metadata.name);
  if (error && !value) return <ErrorNote what="There are no metrics of this pod." error={error} />;
  if (!value) return <Spinner label="Asking for metrics" />;
  const lines = (resource: string): [string, number | undefined][] => [['request', bound(pod, 'requests', resource)], ['limit', bound(pod, 'limits', resource)]];
  return (
    <div className="stack">
      <div className="cards">
        <Section title="CPU"><UseChart label="Cores" history={value.history} pick="cpu" format={formatCpu} lines={lines('cpu')} /></Section>
        <Section title="Memory"><UseChart label="Bytes" history={value.history} pick="memory" format={formatBytes} lines={lines('memory')} /></Section>
      </div>
      <Section title="By container">
        <div className="scroll-x" tabIndex={0}><table className="plain"><thead><tr><th>Container</th><th>CPU</th><th>CPU request, limit</th><th>Memory</th><th>Memory request, limit</th></tr></thead>
          <tbody>{((pod.spec?.containers ?? []) as Container[]).map(({ name, resources }) => <tr key={name}><td>{name}</td><td>{formatCpu(value.containers[name]?.cpu ?? NaN)}</td><td>{resources?.requests?.['cpu'] ?? '–'}, {resources?.limits?.['cpu'] ?? '–'}</td><td>{formatBytes(value.containers[name]?.memory ?? NaN)}</td><td>{resources?.requests?.['memory'] ?? '–'}, {resources?.limits?.['memory'] ?? '–'}</td></tr>)}</tbody></table></div>
      </Section>
      <p className="faint">Asked every 15 s while this is in view. The history is kept by this page only.</p>
    </div>
  );
}

function NodeUse({ node }: { node: KubeObject }) {
  const { value, error } = useNodeUsage();
  if (error && !value) return <ErrorNote what="There are no metrics of this node." error={error} />;
  const history = value?.historyOf(node.metadata.name) ?? [];
  if (!history.length) return <Spinner label="Asking for metrics" />;
  const allocatable = (resource: string): [string, number | undefined][] => [['limit (allocatable)', parseQuantity(node.status?.allocatable?.[resource])]];
  return (
    <div className="cards">
      <Section title="CPU"><UseChart label="Cores" history={history} pick="cpu" format={formatCpu} lines={allocatable('cpu')} /></Section>
      <Section title="Memory"><UseChart label="Bytes" history={history} pick="memory" format={formatBytes} lines={allocatable('memory')} /></Section>
    </div>
  );
}

export default function UsePanel({ resource, object }: PanelProps) {
  return resource.resource === 'nodes' ? <NodeUse node={object} /> : <PodUse pod={object} />;
}
