// The columns of known kinds, one row of this table each. Kinds that are not here get the columns that the server prints
// (see server_table.ts). `value` sorts and searches; `render` draws where text is not enough.
import type { ReactNode } from 'react';
import type { KubeObject } from '../api/objects';
import type { SortKey } from '../lib/compare';
import { formatBytes, parseQuantity } from '../lib/quantity';
import { printMap, printSelector } from '../lib/selector';
import { healthOf } from './health';
import { podHealth, readyCount, restarts } from './pod_status';
import { HealthBadge, RelativeTime } from '../ui/basics';

export interface Column {
  id: string;
  title: string;
  /** A track of the grid. */
  width?: string;
  value(object: KubeObject): SortKey;
  render?(object: KubeObject): ReactNode;
  numeric?: boolean;
  /** Left out on narrow screens. */
  wide?: boolean;
}

const text = (id: string, title: string, value: (object: KubeObject) => SortKey, more: Partial<Column> = {}): Column => ({ id, title, value, ...more });
const number = (id: string, title: string, value: (object: KubeObject) => SortKey, more: Partial<Column> = {}): Column => ({ id, title, value, numeric: true, width: '6.5rem', wide: true, ...more });

const time = (id: string, title: string, value: (object: KubeObject) => string | undefined): Column => ({
  id, title, width: '5.5rem',
  // Negative: the youngest is the smallest age.
  value: (object) => (value(object) ? -Date.parse(value(object)!) : undefined),
  render: (object) => <RelativeTime time={value(object)} />,
});

const status: Column = {
  id: 'status', title: 'Status', width: 'minmax(11.5rem, 1fr)',
  value: (object) => healthOf(object)?.text,
  render: (object) => <HealthBadge health={healthOf(object)} />,
};

const podStatus: Column = { ...status, value: (object) => podHealth(object).text, render: (object) => <HealthBadge health={podHealth(object)} /> };
const withKind = (kind: string): Column => ({ ...status, value: (object) => healthOf(object, kind)?.text, render: (object) => <HealthBadge health={healthOf(object, kind)} /> });

const ratio = (id: string, title: string, have: (object: KubeObject) => number | undefined, want: (object: KubeObject) => number | undefined): Column =>
  number(id, title, (object) => (have(object) ?? 0) / Math.max(1, want(object) ?? 0), { render: (object) => `${have(object) ?? 0}/${want(object) ?? 0}`, wide: false, width: '5rem' });

const images = text('images', 'Images', (object) => ((object.spec?.template?.spec?.containers ?? object.spec?.jobTemplate?.spec?.template?.spec?.containers ?? []) as { image: string }[]).map((container) => shortImage(container.image)).join(', '), { wide: true });

/** An image without the cluster's registry and with a short digest: what tells one from another. */
export const shortImage = (image: string): string => image.replace(/^registry\.windlass\.local\//, '').replace(/@sha256:([0-9a-f]{8})[0-9a-f]+$/, '@$1');

const ports = (object: KubeObject) => ((object.spec?.ports ?? []) as { port: number; nodePort?: number; protocol?: string }[]).map((port) => `${port.port}${port.nodePort ? `:${port.nodePort}` : ''}/${port.protocol ?? 'TCP'}`).join(', ');
const keys = (object: KubeObject) => Object.keys(object.data ?? {}).length + Object.keys(object.binaryData ?? {}).length;
const subjects = (object: KubeObject) => ((object.subjects ?? []) as { kind: string; name: string; namespace?: string }[]).map((subject) => `${subject.kind} ${subject.namespace ? `${subject.namespace}/` : ''}${subject.name}`).join(', ');
const roleRef = text('role', 'Role', (object) => `${object.roleRef?.kind}/${object.roleRef?.name}`);
const selector = text('selector', 'Selector', (object) => printSelector(object.spec?.selector), { wide: true });

/** By `group/resource`. Name, namespace and age are added by the list page. */
export const COLUMNS: Record<string, Column[]> = {
  '/pods': [
    podStatus,
    number('ready', 'Ready', (pod) => readyCount(pod)[0] / Math.max(1, readyCount(pod)[1]), { render: (pod) => readyCount(pod).join('/'), width: '4.5rem' }),
    number('restarts', 'Restarts', restarts, { width: '5.5rem' }),
    text('ip', 'IP', (pod) => pod.status?.podIP, { wide: true, width: '8rem' }),
    text('node', 'Node', (pod) => pod.spec?.nodeName, { wide: true, width: 'minmax(5rem, 0.4fr)' }),
  ],
  'apps/deployments': [
    withKind('Deployment'),
    ratio('ready', 'Ready', (object) => object.status?.readyReplicas, (object) => object.spec?.replicas),
    number('updated', 'Up-to-date', (object) => object.status?.updatedReplicas ?? 0),
    number('available', 'Available', (object) => object.status?.availableReplicas ?? 0),
    images,
  ],
  'apps/replicasets': [withKind('ReplicaSet'), ratio('ready', 'Ready', (object) => object.status?.readyReplicas, (object) => object.spec?.replicas), images],
  '/replicationcontrollers': [withKind('ReplicationController'), ratio('ready', 'Ready', (object) => object.status?.readyReplicas, (object) => object.spec?.replicas), images],
  'apps/statefulsets': [withKind('StatefulSet'), ratio('ready', 'Ready', (object) => object.status?.readyReplicas, (object) => object.spec?.replicas), images],
  'apps/daemonsets': [withKind('DaemonSet'), ratio('ready', 'Ready', (object) => object.status?.numberReady, (object) => object.status?.desiredNumberScheduled), images],
  'batch/jobs': [withKind('Job'), ratio('completions', 'Done', (object) => object.status?.succeeded, (object) => object.spec?.completions ?? 1), images],
  'batch/cronjobs': [
    withKind('CronJob'),
    text('schedule', 'Schedule', (object) => object.spec?.schedule),
    number('active', 'Active', (object) => object.status?.active?.length ?? 0),
    time('last', 'Last run', (object) => object.status?.lastScheduleTime),
  ],
  '/services': [
    text('type', 'Type', (object) => object.spec?.type, { width: '7rem' }),
    text('ip', 'Cluster IP', (object) => object.spec?.clusterIP, { width: '8rem', wide: true }),
    text('ports', 'Ports', ports),
    text('selector', 'Selector', (object) => printMap(object.spec?.selector), { wide: true }),
  ],
  'networking.k8s.io/ingresses': [
    text('class', 'Class', (object) => object.spec?.ingressClassName),
    text('hosts', 'Hosts', (object) => ((object.spec?.rules ?? []) as { host?: string }[]).map((rule) => rule.host ?? '*').join(', ')),
  ],
  'networking.k8s.io/networkpolicies': [
    text('selector', 'Pod selector', (object) => printSelector(object.spec?.podSelector) || 'all pods'),
    text('types', 'Directions', (object) => ((object.spec?.policyTypes ?? []) as string[]).join(', ')),
  ],
  '/nodes': [
    withKind('Node'),
    text('cpu', 'CPU', (object) => object.status?.allocatable?.cpu, { width: '5rem' }),
    number('memory', 'Memory', (object) => parseQuantity(object.status?.allocatable?.memory), { width: '6.5rem', render: (object) => formatBytes(parseQuantity(object.status?.allocatable?.memory)) }),
    text('version', 'Version', (object) => object.status?.nodeInfo?.kubeletVersion, { wide: true }),
    text('runtime', 'Runtime', (object) => object.status?.nodeInfo?.containerRuntimeVersion, { wide: true }),
  ],
  '/namespaces': [withKind('Namespace')],
  '/configmaps': [number('keys', 'Keys', keys, { wide: false })],
  '/secrets': [text('type', 'Type', (object) => object.type), number('keys', 'Keys', keys)],
  '/persistentvolumeclaims': [
    withKind('PersistentVolumeClaim'),
    text('volume', 'Volume', (object) => object.spec?.volumeName),
    text('capacity', 'Capacity', (object) => object.status?.capacity?.storage ?? object.spec?.resources?.requests?.storage),
    text('class', 'Class', (object) => object.spec?.storageClassName, { wide: true }),
  ],
  '/persistentvolumes': [
    withKind('PersistentVolume'),
    text('capacity', 'Capacity', (object) => object.spec?.capacity?.storage),
    text('claim', 'Claim', (object) => (object.spec?.claimRef ? `${object.spec.claimRef.namespace}/${object.spec.claimRef.name}` : undefined)),
  ],
  'autoscaling/horizontalpodautoscalers': [
    text('target', 'Scales', (object) => `${object.spec?.scaleTargetRef?.kind}/${object.spec?.scaleTargetRef?.name}`),
    text('range', 'Range', (object) => `${object.spec?.minReplicas ?? 1}–${object.spec?.maxReplicas}`),
    number('replicas', 'Replicas', (object) => object.status?.currentReplicas ?? 0, { wide: false }),
  ],
  'policy/poddisruptionbudgets': [number('allowed', 'May be disrupted', (object) => object.status?.disruptionsAllowed ?? 0, { wide: false }), selector],
  'rbac.authorization.k8s.io/rolebindings': [roleRef, text('subjects', 'Subjects', subjects)],
  'rbac.authorization.k8s.io/clusterrolebindings': [roleRef, text('subjects', 'Subjects', subjects)],
  'rbac.authorization.k8s.io/roles': [number('rules', 'Rules', (object) => object.rules?.length ?? 0, { wide: false })],
  'rbac.authorization.k8s.io/clusterroles': [number('rules', 'Rules', (object) => object.rules?.length ?? 0, { wide: false })],
};

export const columnsOf = (group: string, resource: string): Column[] | undefined => COLUMNS[`${group}/${resource}`];

export const AGE: Column = time('age', 'Age', (object) => object.metadata.creationTimestamp);
