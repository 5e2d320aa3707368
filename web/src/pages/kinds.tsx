// Every kind that the API server serves, custom resources too: the way to what has no entry in the navigation.
import { useState } from 'react';
import { apiVersionOf, loadDiscovery, useCatalogue, type Resource } from '../api/discovery';
import { useListable } from '../api/rights';
import { listLink } from '../links';
import { useNamespace } from '../namespace';
import { navigate } from '../router';
import { Button, ErrorNote, Link, Spinner, Tag } from '../ui/basics';
import { Table, type TableColumn } from '../ui/table';

const columns = (listable: (group: string, resource: string) => boolean): TableColumn<Resource>[] => [
  { id: 'kind', title: 'Kind', width: 'minmax(9rem, 1.3fr)', value: (row) => row.kind, render: (row) => (row.verbs.includes('list') ? <Link to={listLink(row.group, row.resource)}>{row.kind}</Link> : row.kind) },
  { id: 'version', title: 'API version', width: 'minmax(8rem, 1.3fr)', value: apiVersionOf },
  { id: 'names', title: 'Names', value: (row) => [row.resource, ...row.shortNames].join(', '), wide: true },
  { id: 'scope', title: 'Scope', width: '7rem', value: (row) => (row.namespaced ? 'Namespaced' : 'Cluster'), wide: true },
  { id: 'verbs', title: 'Verbs', width: 'minmax(8rem, 1.6fr)', value: (row) => row.verbs.join(' '), wide: true },
  { id: 'rights', title: 'You may list', width: '7rem', value: (row) => (!row.verbs.includes('list') ? '' : listable(row.group, row.resource) ? 'yes' : 'no') },
];

export default function KindsPage() {
  const { all, phase, error } = useCatalogue();
  const namespace = useNamespace();
  const listable = useListable(namespace);
  const [text, setText] = useState('');
  const [sort, setSort] = useState({ id: 'kind', descending: false });
  const rows = all.filter((row) => `${row.kind} ${row.resource} ${row.group}`.toLowerCase().includes(text.toLowerCase()));
  const open = (row: Resource) => row.verbs.includes('list') && navigate(listLink(row.group, row.resource));
  return (
    <div className="page page-full">
      <div className="page-head"><h1>All kinds</h1><Tag>{rows.length}</Tag><span className="grow" /><input type="search" aria-label="Filter kinds" placeholder="Filter" value={text} onChange={(event) => setText(event.target.value)} /><Button onClick={() => void loadDiscovery()}>Read again</Button></div>
      {error && <ErrorNote what="Discovery failed." error={new Error(error)} />}
      {phase === 'loading' ? <Spinner /> : <Table label="Kinds" rows={rows} columns={columns(listable)} keyOf={(row) => `${row.group}/${row.resource}`} onOpen={open} sort={sort} onSort={setSort} />}
    </div>
  );
}
