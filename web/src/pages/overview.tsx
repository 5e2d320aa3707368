// The overview: what is wrong first, each with its reason and the way to it; then capacity, use and counts.
import { useMemo } from 'react';
import { useNodeUsage } from '../api/metrics';
import type { KubeObject } from '../api/objects';
import { useList } from '../api/use_list';
import { eventCount, eventTime, involved, newestFirst } from '../kinds/events';
import { healthOf, type Health } from '../kinds/health';
import { podHealth, restarts } from '../kinds/pod_status';
import { kindLink, linkOf } from '../links';
import { formatBytes, formatCpu, parseQuantity } from '../lib/quantity';
import { useNamespace } from '../namespace';
import { Empty, ErrorNote, HealthBadge, Link, Meter, Note, RelativeTime, Section, Spinner } from '../ui/basics';
import { Chart } from '../ui/chart';
import { useWorkloads } from './workloads';

interface Issue {
  id: string;
  health: Health;
  title: string;
  where?: string;
  to: string;
  why?: string;
  since?: string;
}

const MOST = 50;
const RANK = { bad: 0, warn: 1, busy: 2, ok: 3, idle: 4 };
/** A pod that is starting is no problem yet. */
const PATIENCE = 60_000;

const older = (object: KubeObject) => Date.now() - Date.parse(object.metadata.creationTimestamp ?? '') > PATIENCE;

function issueOf(group: string, resource: string, kind: string, object: KubeObject, health: Health): Issue {
  return { id: `${resource}/${object.metadata.namespace}/${object.metadata.name}`, health, title: `${kind} ${object.metadata.name}`, where: object.metadata.namespace, to: linkOf(group, resource, object), why: health.reason, since: object.metadata.creationTimestamp };
}

function podIssue(pod: KubeObject): Issue | undefined {
  const health = podHealth(pod);
  if (health.level === 'bad' || health.level === 'warn') return issueOf('', 'pods', 'Pod', pod, health);
  if (health.level === 'busy' && older(pod)) return issueOf('', 'pods', 'Pod', pod, { ...health, level: 'warn' });
  if (restarts(pod) >= 5) return issueOf('', 'pods', 'Pod', pod, { level: 'warn', text: `${restarts(pod)} restarts`, reason: health.reason });
  return undefined;
}

function useIssues(namespace: string) {
  const scope = namespace ? `/namespaces/${namespace}` : '';
  const pods = useList(`/api/v1${scope}/pods`);
  const nodes = useList('/api/v1/nodes');
  const claims = useList(`/api/v1${scope}/persistentvolumeclaims`);
  const { rows, lists } = useWorkloads(namespace);
  const issues = useMemo(() => {
    const found: Issue[] = [];
    for (const node of nodes.items) {
      const health = healthOf(node, 'Node')!;
      if (health.level !== 'ok') found.push(issueOf('', 'nodes', 'Node', node, health));
    }
    for (const { group, resource, kind, object } of rows) {
      const health = healthOf(object, kind)!;
      if (health.level === 'bad' || health.level === 'warn') found.push(issueOf(group, resource, kind, object, health));
    }
    for (const pod of pods.items) found.push(...[podIssue(pod)].filter((issue) => !!issue));
    for (const claim of claims.items) if (claim.status?.phase !== 'Bound' && older(claim)) found.push(issueOf('', 'persistentvolumeclaims', 'Volume claim', claim, { level: 'warn', text: String(claim.status?.phase ?? 'Pending') }));
    return found.sort((left, right) => RANK[left.health.level] - RANK[right.health.level]);
  }, [nodes.items, rows, pods.items, claims.items]);
  return { issues, pods, nodes, rows, loading: [pods, nodes, ...lists].some((list) => list.phase === 'loading'), failed: [pods, nodes, ...lists].find((list) => list.error) };
}

function Issues({ issues, loading }: { issues: Issue[]; loading: boolean }) {
  if (loading && !issues.length) return <Spinner label="Looking" />;
  if (!issues.length) return <Note tone="ok">Nothing is wrong: all workloads are available, all nodes are ready.</Note>;
  return (
    <ul>
      {issues.slice(0, MOST).map((issue) => (
        <li key={issue.id} className="issue"><span><HealthBadge health={issue.health} /></span><span className="wrap"><Link to={issue.to}>{issue.title}</Link> {issue.where && <span className="faint">in {issue.where}</span>}</span><RelativeTime time={issue.since} />{issue.why && <span className="why" title={issue.why}>{issue.why}</span>}</li>
      ))}
      {issues.length > MOST && <li className="faint">and {issues.length - MOST} more; the lists show all</li>}
    </ul>
  );
}

function Warnings({ namespace }: { namespace: string }) {
  const events = useList(namespace ? `/api/v1/namespaces/${namespace}/events` : '/api/v1/events');
  const recent = useMemo(() => events.items.filter((event) => event.type === 'Warning').sort(newestFirst).slice(0, 8), [events.items]);
  if (!recent.length) return <Empty title="No warnings." />;
  return (
    <ul>
      {recent.map((event) => {
        const about = involved(event);
        const to = kindLink(about.apiVersion ?? 'v1', about.kind, about.namespace, about.name);
        return <li key={`${event.metadata.namespace}/${event.metadata.name}`} className="issue"><strong className="wrap">{event.reason}</strong><span className="wrap">{to ? <Link to={to}>{about.kind} {about.name}</Link> : `${about.kind} ${about.name}`} {eventCount(event) > 1 && <span className="faint">×{eventCount(event)}</span>}</span><RelativeTime time={eventTime(event)} /><span className="why">{event.message}</span></li>;
      })}
    </ul>
  );
}

function requested(pods: readonly KubeObject[], resource: string): number {
  return pods.filter((pod) => pod.status?.phase === 'Running' || pod.status?.phase === 'Pending').flatMap((pod) => (pod.spec?.containers ?? []) as { resources?: { requests?: Record<string, string> } }[]).reduce((sum, container) => sum + (parseQuantity(container.resources?.requests?.[resource]) || 0), 0);
}

function Capacity({ nodes, pods }: { nodes: readonly KubeObject[]; pods: readonly KubeObject[] }) {
  const usage = useNodeUsage();
  const total = (resource: string) => nodes.reduce((sum, node) => sum + (parseQuantity(node.status?.allocatable?.[resource]) || 0), 0);
  const used = usage.value?.history.at(-1);
  const [cpu, memory] = [total('cpu'), total('memory')];
  const history = usage.value?.history ?? [];
  return (
    <div className="stack">
      <Meter label="CPU requested" value={requested(pods, 'cpu')} max={cpu} detail={`${formatCpu(requested(pods, 'cpu'))} of ${formatCpu(cpu)}`} />
      {used && <Meter label="CPU used" value={used.cpu} max={cpu} detail={`${formatCpu(used.cpu)} of ${formatCpu(cpu)}`} />}
      <Meter label="Memory requested" value={requested(pods, 'memory')} max={memory} detail={`${formatBytes(requested(pods, 'memory'))} of ${formatBytes(memory)}`} />
      {used && <Meter label="Memory used" value={used.memory} max={memory} detail={`${formatBytes(used.memory)} of ${formatBytes(memory)}`} />}
      <Meter label="Pods" value={pods.length} max={total('pods')} detail={`${pods.length} of ${total('pods') || '–'}`} />
      {usage.error && <p className="faint">No metrics: {usage.error.message}</p>}
      {history.length > 1 && <Chart label="CPU used by nodes" times={history.map((sample) => sample.time)} series={[{ label: 'cores', values: history.map((sample) => sample.cpu) }]} format={formatCpu} height={120} />}
    </div>
  );
}

export default function Overview() {
  const namespace = useNamespace();
  const { issues, pods, nodes, rows, loading, failed } = useIssues(namespace);
  const counts: [string, number, string][] = [
    ['Workloads', rows.length, '/workloads'],
    ['Pods', pods.items.length, '/list/core/pods'],
    ['Pods running', pods.items.filter((pod) => pod.status?.phase === 'Running').length, '/list/core/pods?q=running'],
    ['Nodes', nodes.items.length, '/list/core/nodes'],
  ];
  return (
    <div className="page">
      <div className="page-head"><h1>Overview{namespace && ` of ${namespace}`}</h1><span className="grow" /><Link className="button button-primary" to="/create">Create</Link></div>
      {failed?.error && <ErrorNote what="Not everything could be read, so this may not be all." error={failed.error} />}
      <Section title={issues.length ? `Needs attention (${issues.length})` : 'Needs attention'}><Issues issues={issues} loading={loading} /></Section>
      <div className="cards cards-small">
        {counts.map(([label, count, to]) => <Link key={label} to={to} className="card"><div className="big">{loading ? '…' : count}</div>{label}</Link>)}
      </div>
      <div className="cards">
        <Section title="Capacity and use"><Capacity nodes={nodes.items} pods={pods.items} /></Section>
        <Section title="Recent warnings" actions={<Link to="/events?type=Warning">All warnings</Link>}><Warnings namespace={namespace} /></Section>
      </div>
    </div>
  );
}
