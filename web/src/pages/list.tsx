// The list of any kind: live, searchable, sortable, by namespace and label; its state is in the address.
import { useDeferredValue, useMemo } from 'react';
import { collectionPath, findResource, useCatalogue, type Resource } from '../api/discovery';
import { useLookAgain } from '../api/fresh_discovery';
import { useAccess } from '../api/rights';
import { objectKey, type KubeObject } from '../api/objects';
import { useList } from '../api/use_list';
import type { Snapshot } from '../api/watch_store';
import { AGE, columnsOf, type Column } from '../kinds/columns';
import { useServerColumns } from '../kinds/server_table';
import { linkOf } from '../links';
import { matchesAll, parseSelector } from '../lib/selector';
import { useNamespace } from '../namespace';
import { navigate, setQuery, useLocation } from '../router';
import { Button, Empty, ErrorNote, Link, Spinner, Tag } from '../ui/basics';
import { Table } from '../ui/table';
import type { PageProps } from './table';

const namespaceColumn: Column = { id: 'namespace', title: 'Namespace', width: 'minmax(6rem, 0.6fr)', value: (object) => object.metadata.namespace, wide: true };

function nameColumn(resource: Resource): Column {
  return { id: 'name', title: 'Name', width: 'minmax(9rem, 3fr)', value: (object) => object.metadata.name, render: (object) => <Link to={linkOf(resource.group, resource.resource, object)} title={object.metadata.name}>{object.metadata.name}</Link> };
}

/** What a search looks through. An object is replaced when it changes, so its text is put together once. */
class Texts {
  #known = new WeakMap<KubeObject, string>();

  constructor(private readonly columns: readonly Column[]) {}

  of(object: KubeObject): string {
    let text = this.#known.get(object);
    if (text === undefined) {
      text = this.columns.map((column) => column.value(object)).filter((value) => typeof value === 'string').join(' ').toLowerCase();
      this.#known.set(object, text);
    }
    return text;
  }
}

/** The rows that the search and the label selector leave. */
export function useFiltered(items: readonly KubeObject[], columns: Column[], search: string, labels: string) {
  const texts = useMemo(() => new Texts(columns), [columns]);
  return useMemo(() => {
    let problem: string | undefined;
    let rows = items;
    try {
      const requirements = parseSelector(labels);
      if (requirements.length) rows = rows.filter((object) => matchesAll(object.metadata.labels, requirements));
    } catch (error) {
      problem = (error as Error).message;
    }
    const words = search.toLowerCase().split(/\s+/).filter(Boolean);
    if (words.length) {
      rows = rows.filter((object) => {
        const text = texts.of(object);
        return words.every((word) => text.includes(word));
      });
    }
    return { rows, problem };
  }, [items, texts, search, labels]);
}

function parseSort(text: string | null): { id: string; descending: boolean } {
  if (!text) return { id: 'name', descending: false };
  return text.startsWith('-') ? { id: text.slice(1), descending: true } : { id: text, descending: false };
}

export function Count({ list, shown }: { list: Snapshot; shown: number }) {
  const loading = list.phase === 'loading' ? `, loading${list.remaining ? ` ${list.remaining} more` : ''}` : '';
  const text = shown === list.items.length ? `${shown}` : `${shown} of ${list.items.length}`;
  return <Tag tone={list.phase === 'reconnecting' ? 'warn' : undefined}><span data-testid="count">{text}</span>{loading}{list.phase === 'reconnecting' ? ', not live' : ''}</Tag>;
}

function ListTable({ resource }: { resource: Resource }) {
  const namespace = useNamespace();
  const { query } = useLocation();
  const path = collectionPath(resource, namespace);
  const list = useList(path);
  const known = columnsOf(resource.group, resource.resource);
  const printed = useServerColumns(known ? undefined : path, list);
  const columns = useMemo(() => {
    const own = known ?? printed;
    const scope = resource.namespaced && !namespace ? [namespaceColumn] : [];
    return [nameColumn(resource), ...scope, ...own, AGE];
  }, [known, printed, resource, namespace]);
  const search = query.get('q') ?? '';
  const labels = query.get('labels') ?? '';
  const { rows, problem } = useFiltered(list.items, columns, useDeferredValue(search), useDeferredValue(labels));
  const create = useAccess({ verb: 'create', group: resource.group, resource: resource.resource, namespace: resource.namespaced ? namespace || 'default' : undefined });
  const sort = parseSort(query.get('sort'));
  const createReason = create.known && !create.allowed ? create.reason : undefined;
  return (
    <div className="page page-full">
      <div className="page-head">
        <h1>{resource.kind}</h1><Count list={list} shown={rows.length} />
        <span className="grow" />
        <input type="search" aria-label="Filter rows" placeholder="Filter" value={search} onChange={(event) => setQuery({ q: event.target.value })} />
        <input type="search" aria-label="Label selector" aria-invalid={!!problem} title={problem} placeholder="Labels: app=web,!old" value={labels} onChange={(event) => setQuery({ labels: event.target.value })} />
        <Button reason={createReason} onClick={() => navigate(`/create/yaml?kind=${encodeURIComponent(`${resource.group}/${resource.resource}`)}`)}>Create</Button>
      </div>
      {problem && <div className="note note-warn" role="alert">{problem}</div>}
      {list.error && <ErrorNote what={list.error.code === 403 ? 'You may not list this.' : list.phase === 'reconnecting' ? 'Not up to date.' : 'The list could not be read; it is tried again.'} error={list.error} />}
      {list.phase === 'loading' && !list.items.length ? <Spinner label={`Listing ${resource.resource}`} /> : (
        <Table label={resource.kind} rows={rows} columns={columns} keyOf={objectKey} onOpen={(object) => navigate(linkOf(resource.group, resource.resource, object))} sort={sort} onSort={(next) => setQuery({ sort: `${next.descending ? '-' : ''}${next.id}` })} rowClass={(object) => (object.metadata.deletionTimestamp ? 'row-dim' : '')} empty={list.phase !== 'failed' && <Empty title={list.items.length ? 'Nothing matches the filter.' : `There is no ${resource.kind}${namespace && resource.namespaced ? ` in namespace ${namespace}` : ''}.`} />} />
      )}
    </div>
  );
}

export default function ListPage({ params }: PageProps) {
  const { all, phase, error } = useCatalogue();
  const group = params['group'] === 'core' ? '' : params['group']!;
  const resource = findResource(all, group, params['resource']!);
  useLookAgain(!resource && phase === 'ready', `${group}/${params['resource']}`);
  if (resource) return <ListTable key={`${group}/${resource.resource}`} resource={resource} />;
  if (phase === 'loading') return <Spinner />;
  return <div className="page">{phase === 'failed' ? <ErrorNote what="Discovery failed." error={new Error(error)} /> : <Empty title={`The API server does not serve ${params['resource']} of ${params['group']}.`} />}</div>;
}
