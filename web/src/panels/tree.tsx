// Owners above, dependents below, as one tree with the object in its place.
//
// Owners are named by the object itself. Dependents are found by looking for the object's uid among the owner references
// of the kinds that controllers create; what a Service selects counts as its dependents too.
import { useMemo } from 'react';
import { apiVersionOf, collectionPath, findKind, findResource, useCatalogue, type Resource } from '../api/discovery';
import type { KubeObject, OwnerReference } from '../api/objects';
import { useList, useObject } from '../api/use_list';
import { healthOf } from '../kinds/health';
import { kindLink, linkOf } from '../links';
import { mapSelects } from '../lib/selector';
import { Empty, HealthBadge, Link } from '../ui/basics';

const CREATED = ['apps/replicasets', '/pods', 'batch/jobs', 'apps/controllerrevisions', 'discovery.k8s.io/endpointslices', '/persistentvolumeclaims'];
const MOST = 100;

interface Entry {
  resource: Resource;
  object: KubeObject;
}

function useCreated(namespace: string | undefined): Entry[] {
  const { all } = useCatalogue();
  const resources = CREATED.map((key) => findResource(all, ...(key.split('/') as [string, string])));
  const pathOf = (index: number) => (resources[index] && namespace ? collectionPath(resources[index], namespace) : undefined);
  // One hook for each row of CREATED.
  const lists = [useList(pathOf(0)), useList(pathOf(1)), useList(pathOf(2)), useList(pathOf(3)), useList(pathOf(4)), useList(pathOf(5))];
  return lists.flatMap((list, index) => (resources[index] ? list.items.map((object) => ({ resource: resources[index]!, object })) : []));
}

function Node({ kind, name, to, object, here }: { kind: string; name: string; to?: string; object?: KubeObject; here?: boolean }) {
  return <span className="tree-node"><span className="tree-kind">{kind}</span>{here ? <strong>{name}</strong> : to ? <Link to={to}>{name}</Link> : name}{object && <HealthBadge health={healthOf(object, kind)} />}</span>;
}

function Branch({ uid, entries, depth }: { uid: string; entries: Entry[]; depth: number }) {
  const children = entries.filter(({ object }) => object.metadata.ownerReferences?.some((owner) => owner.uid === uid));
  if (!children.length || depth > 5) return null;
  return (
    <ul>
      {children.slice(0, MOST).map(({ resource, object }) => <li key={object.metadata.uid}><Node kind={resource.kind} name={object.metadata.name} to={linkOf(resource.group, resource.resource, object)} object={object} /><Branch uid={object.metadata.uid!} entries={entries} depth={depth + 1} /></li>)}
      {children.length > MOST && <li className="faint">and {children.length - MOST} more</li>}
    </ul>
  );
}

/** The chain of controllers above, outermost first. */
function Owner({ owner, namespace, children }: { owner: OwnerReference; namespace?: string; children: React.ReactNode }) {
  const { all } = useCatalogue();
  const resource = findKind(all, owner.apiVersion, owner.kind);
  const { object } = useObject(resource && collectionPath(resource, namespace), owner.name);
  const next = object?.metadata.ownerReferences?.find((entry) => entry.controller) ?? object?.metadata.ownerReferences?.[0];
  const self = <li><Node kind={owner.kind} name={owner.name} to={kindLink(owner.apiVersion, owner.kind, namespace, owner.name)} object={object} /><ul>{children}</ul></li>;
  return next ? <Owner owner={next} namespace={namespace}>{self}</Owner> : self;
}

export function RelativeTree({ resource, object }: { resource: Resource; object: KubeObject }) {
  const { namespace, uid, ownerReferences } = object.metadata;
  const entries = useCreated(namespace);
  const selected = useMemo(() => (resource.resource === 'services' && !resource.group ? entries.filter((entry) => entry.resource.resource === 'pods' && mapSelects(object.spec?.selector, entry.object.metadata.labels)) : []), [entries, resource, object]);
  const owner = ownerReferences?.find((entry) => entry.controller) ?? ownerReferences?.[0];
  const dependents = entries.some((entry) => entry.object.metadata.ownerReferences?.some((reference) => reference.uid === uid));
  if (!owner && !dependents && !selected.length) return <Empty title="It has no owner and no dependents." />;
  const self = (
    <li><Node kind={resource.kind} name={object.metadata.name} here object={{ ...object, apiVersion: apiVersionOf(resource) }} />
      {uid && <Branch uid={uid} entries={entries} depth={0} />}
      {selected.length > 0 && <ul>{selected.slice(0, MOST).map((entry) => <li key={entry.object.metadata.uid}><Node kind="selects Pod" name={entry.object.metadata.name} to={linkOf('', 'pods', entry.object)} object={entry.object} /></li>)}</ul>}
    </li>
  );
  return <div className="tree"><ul>{owner ? <Owner owner={owner} namespace={namespace}>{self}</Owner> : self}</ul></div>;
}
