// The pods of a workload, a Service or a node, live, in a small table.
import { useMemo } from 'react';
import type { Resource } from '../api/discovery';
import type { KubeObject } from '../api/objects';
import { useList } from '../api/use_list';
import { podHealth, readyCount, restarts } from '../kinds/pod_status';
import { isWorkload, selectorQuery } from '../kinds/workloads';
import { listLink, linkOf } from '../links';
import { Empty, ErrorNote, HealthBadge, Link, RelativeTime, Section } from '../ui/basics';
import { withFields } from '../lib/selector';

const MOST = 50;

/** The query that lists an object's pods, or undefined for kinds that have none. */
export function podsPath(resource: Resource, object: KubeObject): string | undefined {
  const { namespace, name } = object.metadata;
  if (resource.resource === 'nodes' && !resource.group) return `/api/v1/pods?${withFields({ 'spec.nodeName': name })}`;
  const selects = isWorkload(resource.group, resource.resource) || (resource.resource === 'services' && !resource.group);
  const query = selects && selectorQuery(object);
  return query ? `/api/v1/namespaces/${namespace}/pods?labelSelector=${encodeURIComponent(query)}` : undefined;
}

export function PodsOf({ resource, object }: { resource: Resource; object: KubeObject }) {
  const path = podsPath(resource, object);
  const list = useList(path);
  const pods = useMemo(() => [...list.items].sort((left, right) => left.metadata.name.localeCompare(right.metadata.name)), [list.items]);
  if (!path) return null;
  const query = selectorQuery(object);
  const all = resource.resource === 'nodes' ? listLink('', 'pods', `?ns=*&q=${encodeURIComponent(object.metadata.name)}`) : listLink('', 'pods', `?ns=${object.metadata.namespace}&labels=${encodeURIComponent(query ?? '')}`);
  return (
    <Section title={`Pods (${pods.length})`} actions={<Link to={all}>As a list</Link>}>
      {list.error && <ErrorNote error={list.error} />}
      {!pods.length ? <Empty title={list.phase === 'loading' ? 'Reading pods…' : 'No pods.'} /> : (
        <div className="scroll-x" tabIndex={0}><table className="plain">
          <thead><tr><th>Name</th><th>Status</th><th>Ready</th><th>Restarts</th><th>Node</th><th>Age</th></tr></thead>
          <tbody>{pods.slice(0, MOST).map((pod) => <tr key={pod.metadata.uid}><td><Link to={linkOf('', 'pods', pod)}>{pod.metadata.name}</Link></td><td><HealthBadge health={podHealth(pod)} /></td><td>{readyCount(pod).join('/')}</td><td>{restarts(pod)}</td><td>{pod.spec?.nodeName}</td><td><RelativeTime time={pod.metadata.creationTimestamp} /></td></tr>)}</tbody>
        </table></div>
      )}
      {pods.length > MOST && <p className="faint">and {pods.length - MOST} more</p>}
    </Section>
  );
}
