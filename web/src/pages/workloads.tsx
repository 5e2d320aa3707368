// All workloads of all kinds in one table, the troubled ones first.
import { useMemo, useState } from 'react';
import type { KubeObject } from '../api/objects';
import { useList } from '../api/use_list';
import { healthOf, type Level } from '../kinds/health';
import { shortImage } from '../kinds/columns';
import { podTemplate } from '../kinds/workloads';
import { linkOf } from '../links';
import { useNamespace } from '../namespace';
import { navigate } from '../router';
import { Empty, ErrorNote, HealthBadge, Link, RelativeTime, Spinner, Tag } from '../ui/basics';
import { Table, type TableColumn } from '../ui/table';

interface Row {
  kind: string;
  group: string;
  resource: string;
  object: KubeObject;
}

const KINDS: [group: string, resource: string, kind: string][] = [
  ['apps', 'deployments', 'Deployment'],
  ['apps', 'statefulsets', 'StatefulSet'],
  ['apps', 'daemonsets', 'DaemonSet'],
  ['batch', 'jobs', 'Job'],
  ['batch', 'cronjobs', 'CronJob'],
];
const WORST_FIRST: Record<Level, number> = { bad: 0, warn: 1, busy: 2, ok: 3, idle: 4 };

function replicas({ kind, object: { spec, status = {} } }: Row): string {
  if (kind === 'DaemonSet') return `${status.numberReady ?? 0}/${status.desiredNumberScheduled ?? 0}`;
  if (kind === 'Job') return `${status.succeeded ?? 0}/${spec.completions ?? 1}`;
  if (kind === 'CronJob') return `${status.active?.length ?? 0} active`;
  return `${status.readyReplicas ?? 0}/${spec.replicas ?? 1}`;
}

const imagesOf = (object: KubeObject) => ((podTemplate(object)?.spec?.containers ?? []) as { image: string }[]).map((container) => shortImage(container.image)).join(', ');

const COLUMNS: TableColumn<Row>[] = [
  { id: 'name', title: 'Name', width: 'minmax(9rem, 1.5fr)', value: (row) => row.object.metadata.name, render: (row) => <Link to={linkOf(row.group, row.resource, row.object)}>{row.object.metadata.name}</Link> },
  { id: 'kind', title: 'Kind', width: '7.5rem', value: (row) => row.kind, wide: true },
  { id: 'namespace', title: 'Namespace', value: (row) => row.object.metadata.namespace, wide: true },
  { id: 'health', title: 'Status', width: 'minmax(11.5rem, 1fr)', value: (row) => WORST_FIRST[healthOf(row.object, row.kind)?.level ?? 'idle'], render: (row) => <HealthBadge health={healthOf(row.object, row.kind)} /> },
  { id: 'replicas', title: 'Ready', width: '6rem', value: replicas },
  { id: 'images', title: 'Images', width: 'minmax(8rem, 2fr)', value: (row) => imagesOf(row.object), wide: true },
  { id: 'age', title: 'Age', width: '5rem', value: (row) => -Date.parse(row.object.metadata.creationTimestamp ?? ''), render: (row) => <RelativeTime time={row.object.metadata.creationTimestamp} /> },
];

export function useWorkloads(namespace: string) {
  const scope = namespace ? `/namespaces/${namespace}` : '';
  // One hook for each kind, always the same five in the same order.
  const lists = [
    useList(`/apis/apps/v1${scope}/deployments`),
    useList(`/apis/apps/v1${scope}/statefulsets`),
    useList(`/apis/apps/v1${scope}/daemonsets`),
    useList(`/apis/batch/v1${scope}/jobs`),
    useList(`/apis/batch/v1${scope}/cronjobs`),
  ];
  const [a, b, c, d, e] = lists.map((list) => list.items);
  const rows = useMemo(() => [a!, b!, c!, d!, e!].flatMap((items, index) => {
    const [group, resource, kind] = KINDS[index]!;
    // Jobs of a CronJob show on its page; here they would bury the rest.
    return items.filter((object) => !(kind === 'Job' && object.metadata.ownerReferences?.some((owner) => owner.kind === 'CronJob'))).map((object): Row => ({ group, resource, kind, object }));
  }), [a, b, c, d, e]);
  return { rows, lists };
}

export default function WorkloadsPage() {
  const namespace = useNamespace();
  const { rows, lists } = useWorkloads(namespace);
  const [text, setText] = useState('');
  const [sort, setSort] = useState({ id: 'health', descending: false });
  const shown = useMemo(() => rows.filter((row) => `${row.object.metadata.namespace} ${row.object.metadata.name} ${row.kind} ${imagesOf(row.object)}`.toLowerCase().includes(text.toLowerCase())), [rows, text]);
  const failed = lists.find((list) => list.error);
  return (
    <div className="page page-full">
      <div className="page-head"><h1>Workloads</h1><Tag>{shown.length}</Tag><span className="grow" /><input type="search" aria-label="Filter rows" placeholder="Filter" value={text} onChange={(event) => setText(event.target.value)} /><Link className="button button-primary" to="/create">Create</Link></div>
      {failed?.error && <ErrorNote what="Not every kind of workload could be read." error={failed.error} />}
      {lists.every((list) => list.phase === 'loading') ? <Spinner /> : <Table label="Workloads" rows={shown} columns={COLUMNS} keyOf={(row) => `${row.kind}/${row.object.metadata.namespace}/${row.object.metadata.name}`} sort={sort} onSort={setSort} onOpen={(row) => navigate(linkOf(row.group, row.resource, row.object))} empty={<Empty title={rows.length ? 'Nothing matches the filter.' : 'No workloads.'}><Link to="/create">Create one</Link></Empty>} />}
    </div>
  );
}
