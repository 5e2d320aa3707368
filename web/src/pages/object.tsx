// The page of any object: what it is, how it is, what can be done to it, and tabs for what its kind has to show.
import { Suspense } from 'react';
import { collectionPath, findResource, useCatalogue, type Resource } from '../api/discovery';
import { useLookAgain } from '../api/fresh_discovery';
import { useObject } from '../api/use_list';
import { ActionBar } from '../actions/bar';
import { healthOf } from '../kinds/health';
import { listLink, objectLink } from '../links';
import { tabsOf } from '../panels/table';
import { Empty, ErrorNote, HealthBadge, Link, Note, RelativeTime, Spinner } from '../ui/basics';
import { Tabs } from '../ui/tabs';
import type { PageProps } from './table';

function ObjectView({ resource, namespace, name, tab }: { resource: Resource; namespace?: string; name: string; tab: string }) {
  const { phase, object, deleted, error } = useObject(collectionPath(resource, namespace), name);
  if (!object) {
    if (phase === 'loading') return <Spinner label={`Reading ${name}`} />;
    if (error) return <div className="page"><ErrorNote what={`${resource.kind} ${name} could not be read.`} error={error} /></div>;
    return <div className="page"><Empty title={`There is no ${resource.kind} ${name}${namespace ? ` in namespace ${namespace}` : ''}.`}><Link to={listLink(resource.group, resource.resource)}>All of this kind</Link></Empty></div>;
  }
  const tabs = tabsOf(resource);
  const current = tabs.find((entry) => entry.id === tab) ?? tabs[0]!;
  const links = tabs.map((entry) => ({ id: entry.id, title: entry.title, to: objectLink(resource.group, resource.resource, namespace, name, entry.id === tabs[0]!.id ? '' : entry.id) }));
  return (
    <div className="page">
      <div className="page-head">
        <div className="grow">
          <div className="crumbs"><Link to={listLink(resource.group, resource.resource)}>{resource.kind}</Link>{namespace && <> in <Link to={objectLink('', 'namespaces', undefined, namespace)}>{namespace}</Link></>}</div>
          <div className="inline"><h1>{name}</h1><HealthBadge health={deleted ? { level: 'bad', text: 'Deleted' } : healthOf({ ...object, kind: resource.kind }, resource.kind)} /><span className="faint"><RelativeTime time={object.metadata.creationTimestamp} suffix=" old" /></span></div>
        </div>
        {!deleted && <ActionBar resource={resource} object={object} />}
      </div>
      {deleted && <Note tone="bad">This {resource.kind} was deleted on the server. The page shows its last state; nothing here can be changed.</Note>}
      {object.metadata.deletionTimestamp && !deleted && <Note tone="warn">Being deleted since <RelativeTime time={object.metadata.deletionTimestamp} suffix=" ago" />{object.metadata.finalizers?.length ? `; held by ${object.metadata.finalizers.join(', ')}` : ''}.</Note>}
      {phase === 'failed' && error && <ErrorNote what="Not up to date." error={error} />}
      <Tabs tabs={links} current={current.id} label="Views" />
      <Suspense fallback={<Spinner />}><current.panel resource={resource} object={object} deleted={deleted} /></Suspense>
    </div>
  );
}

export default function ObjectPage({ params }: PageProps) {
  const { all, phase, error } = useCatalogue();
  const group = params['group'] === 'core' ? '' : params['group']!;
  const resource = findResource(all, group, params['resource']!);
  useLookAgain(!resource && phase === 'ready', `${group}/${params['resource']}`);
  const namespace = params['namespace'] === '-' ? undefined : params['namespace'];
  if (resource) return <ObjectView key={`${namespace}/${params['name']}/${resource.resource}`} resource={resource} namespace={namespace} name={params['name']!} tab={params['tab'] ?? ''} />;
  if (phase === 'loading') return <Spinner />;
  return <div className="page">{phase === 'failed' ? <ErrorNote what="Discovery failed." error={new Error(error)} /> : <Empty title={`The API server does not serve ${params['resource']} of ${params['group']}.`} />}</div>;
}
