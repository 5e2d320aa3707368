// All events, newest first; warnings can be had alone. Columns say what happened to what, how often and when.
import { useMemo } from 'react';
import { objectKey } from '../api/objects';
import { useList } from '../api/use_list';
import type { Column } from '../kinds/columns';
import { eventCount, eventTime, involved } from '../kinds/events';
import { kindLink, linkOf } from '../links';
import { useNamespace } from '../namespace';
import { navigate, setQuery, useLocation } from '../router';
import { Empty, ErrorNote, Link, RelativeTime, Spinner, Tag } from '../ui/basics';
import { Table } from '../ui/table';
import { Count, useFiltered } from './list';

const COLUMNS: Column[] = [
  { id: 'time', title: 'Last seen', width: '5.5rem', value: (event) => -Date.parse(eventTime(event) ?? ''), render: (event) => <RelativeTime time={eventTime(event)} /> },
  { id: 'type', title: 'Type', width: '5.5rem', value: (event) => event.type, render: (event) => <Tag tone={event.type === 'Warning' ? 'warn' : undefined}>{event.type}</Tag> },
  { id: 'reason', title: 'Reason', width: 'minmax(7rem, 0.8fr)', value: (event) => event.reason },
  { id: 'object', title: 'Object', width: 'minmax(9rem, 1.2fr)', value: (event) => `${involved(event).kind} ${involved(event).name}`, render: (event) => {
    const about = involved(event);
    const to = kindLink(about.apiVersion ?? 'v1', about.kind, about.namespace, about.name);
    return to ? <Link to={to}>{about.kind} {about.name}</Link> : `${about.kind} ${about.name}`;
  } },
  { id: 'namespace', title: 'Namespace', width: 'minmax(6.5rem, 0.5fr)', value: (event) => event.metadata.namespace, wide: true },
  { id: 'message', title: 'Message', width: 'minmax(10rem, 3fr)', value: (event) => event.message ?? event.note, wide: true },
  { id: 'count', title: 'Count', width: '4.5rem', numeric: true, wide: true, value: eventCount },
];

export default function EventsPage() {
  const namespace = useNamespace();
  const { query } = useLocation();
  const list = useList(namespace ? `/api/v1/namespaces/${namespace}/events` : '/api/v1/events');
  const warnings = query.get('type') === 'Warning';
  const items = useMemo(() => (warnings ? list.items.filter((event) => event.type === 'Warning') : list.items), [list.items, warnings]);
  const search = query.get('q') ?? '';
  const { rows } = useFiltered(items, COLUMNS, search, '');
  const sort = query.get('sort') ?? 'time';
  return (
    <div className="page page-full">
      <div className="page-head">
        <h1>Events</h1><Count list={list} shown={rows.length} /><span className="grow" />
        <label><input type="checkbox" checked={warnings} onChange={(event) => setQuery({ type: event.target.checked ? 'Warning' : undefined })} />Warnings only</label>
        <input type="search" aria-label="Filter rows" placeholder="Filter" value={search} onChange={(event) => setQuery({ q: event.target.value })} />
      </div>
      {list.error && <ErrorNote what="Events could not be read." error={list.error} />}
      {list.phase === 'loading' && !list.items.length ? <Spinner /> : <Table label="Events" rows={rows} columns={COLUMNS} keyOf={objectKey} sort={{ id: sort.replace('-', ''), descending: sort.startsWith('-') }} onSort={(next) => setQuery({ sort: `${next.descending ? '-' : ''}${next.id}` })} onOpen={(event) => navigate(linkOf('', 'events', event))} empty={<Empty title="No events." />} />}
    </div>
  );
}
