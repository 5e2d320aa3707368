// The global search: pages, kinds, actions, and objects by name or `label=value`.
//
// Objects are listed when the search opens, kind by kind, through the same live lists that pages use; kinds that the
// user may not list are left out.
import { useDeferredValue, useEffect, useMemo, useRef, useState, type KeyboardEvent } from 'react';
import { findResource, useCatalogue, type Resource } from '../api/discovery';
import type { KubeObject } from '../api/objects';
import { useList } from '../api/use_list';
import { linkOf, listLink } from '../links';
import { score } from '../lib/fuzzy';
import { NAVIGATION, entryLink } from '../navigation';
import { navigate } from '../router';
import { ACTIONS, actionsFor } from '../actions/table';

interface Hit {
  id: string;
  what: string;
  title: string;
  detail?: string;
  to: string;
  score: number;
}

const SEARCHED = ['/pods', 'apps/deployments', 'apps/statefulsets', 'apps/daemonsets', 'batch/jobs', 'batch/cronjobs', '/services', 'networking.k8s.io/ingresses', '/configmaps', '/secrets', '/persistentvolumeclaims', '/nodes', '/namespaces', '/serviceaccounts', 'networking.k8s.io/networkpolicies'];
const MOST = 60;
const FIXED = [{ title: 'Create from YAML, an image or a .wasm file', to: '/create' }];

function labelHit(object: KubeObject, query: string): string | undefined {
  return Object.entries(object.metadata.labels ?? {}).map(([key, value]) => `${key}=${value}`).find((text) => text.toLowerCase().includes(query));
}

function objectHits(resource: Resource, objects: readonly KubeObject[], query: string): Hit[] {
  const hits: Hit[] = [];
  for (const object of objects) {
    const { name, namespace } = object.metadata;
    const words = query.split(/\s+/).filter((word) => !matchesKind(resource, word));
    const rest = words.join(' ');
    const byName = rest ? score(name, rest) || score(`${namespace ?? ''} ${name}`, rest) * 0.8 : query ? 1 : 0;
    const label = byName ? undefined : labelHit(object, query);
    if (!byName && !label) continue;
    hits.push({ id: `${resource.resource}/${namespace}/${name}`, what: resource.kind, title: name, detail: label ?? namespace, to: linkOf(resource.group, resource.resource, object), score: byName || 2 });
  }
  return hits;
}

const matchesKind = (resource: Resource, word: string) => [resource.resource, resource.kind.toLowerCase(), ...resource.shortNames].includes(word);

/** Actions on an object: `scale hello` offers the dialog on the object's page. */
function actionHits(resource: Resource, objects: readonly KubeObject[], query: string): Hit[] {
  const [verb, ...rest] = query.split(/\s+/);
  const wanted = ACTIONS.filter((action) => action.label.toLowerCase().startsWith(verb ?? '') && (verb ?? '').length > 2);
  if (!wanted.length || !rest.length) return [];
  return objects.flatMap((object) => {
    const value = score(object.metadata.name, rest.join(' '));
    if (!value) return [];
    return actionsFor(resource).filter((action) => wanted.includes(action) && !action.unfit?.(object)).map((action): Hit => ({ id: `${action.id}/${resource.resource}/${object.metadata.namespace}/${object.metadata.name}`, what: 'Action', title: `${action.label} ${object.metadata.name}`, detail: object.metadata.namespace, to: `${linkOf(resource.group, resource.resource, object)}?action=${action.id}`, score: value + 10 }));
  });
}

function pageHits(all: Resource[], query: string): Hit[] {
  const pages = NAVIGATION.flatMap((group) => group.entries).map((entry) => ({ what: 'Page', title: entry.title, to: entryLink(entry) }));
  const fixed = FIXED.map((entry) => ({ what: 'Action', ...entry }));
  const kinds = all.filter((entry) => entry.verbs.includes('list')).map((entry) => ({ what: 'Kind', title: `${entry.kind} (${[entry.resource, ...entry.shortNames].join(', ')})`, detail: entry.group || 'core', to: listLink(entry.group, entry.resource) }));
  return [...pages, ...fixed, ...kinds].map((hit) => ({ ...hit, id: `${hit.what}${hit.to}`, score: query ? score(hit.title, query) : hit.what === 'Kind' ? 0 : 1 })).filter((hit) => hit.score > 0);
}

/** One kind's live list, reporting its hits upwards: hooks can't be called in a loop, components can. */
function Source({ resource, query, report }: { resource: Resource; query: string; report(id: string, hits: Hit[]): void }) {
  const list = useList(`/${resource.group ? `apis/${resource.group}` : 'api'}/${resource.version}/${resource.resource}`);
  const { items } = list;
  useEffect(() => {
    report(`${resource.group}/${resource.resource}`, query ? [...objectHits(resource, items, query), ...actionHits(resource, items, query)] : []);
  }, [items, query, report, resource]);
  return null;
}

export function Palette({ onClose }: { onClose(): void }) {
  const { all } = useCatalogue();
  const [text, setText] = useState('');
  const query = useDeferredValue(text.trim().toLowerCase());
  const [found, setFound] = useState<Record<string, Hit[]>>({});
  const [at, setAt] = useState(0);
  const dialog = useRef<HTMLDialogElement>(null);
  const report = useRef((id: string, hits: Hit[]) => setFound((old) => (hits.length || old[id]?.length ? { ...old, [id]: hits } : old))).current;
  useEffect(() => {
    const before = document.activeElement as HTMLElement | null;
    dialog.current?.showModal();
    return () => before?.focus?.();
  }, []);
  const hits = useMemo(() => [...pageHits(all, query), ...Object.values(found).flat()].sort((left, right) => right.score - left.score).slice(0, MOST), [all, query, found]);
  const sources = SEARCHED.flatMap((key) => {
    const [group, resource] = key.split('/');
    return findResource(all, group!, resource!) ?? [];
  });
  const open = (hit: Hit | undefined) => {
    if (!hit) return;
    onClose();
    navigate(hit.to);
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === 'Enter') open(hits[at]);
    else if (step) setAt((at + step + hits.length) % Math.max(1, hits.length));
    else return;
    event.preventDefault();
  };
  return (
    <dialog ref={dialog} className="dialog palette" aria-label="Search" onCancel={(event) => { event.preventDefault(); onClose(); }} onMouseDown={(event) => event.target === dialog.current && onClose()}>
      {sources.map((resource) => <Source key={`${resource.group}/${resource.resource}`} resource={resource} query={query} report={report} />)}
      <input autoFocus aria-label="Search names, kinds, labels and actions" placeholder="A name, kind, label=value, or an action: scale hello" role="combobox" aria-expanded="true" aria-controls="palette-hits" aria-activedescendant={hits[at] ? `hit-${at}` : undefined} value={text} onChange={(event) => { setText(event.target.value); setAt(0); }} onKeyDown={onKeyDown} />
      <ul id="palette-hits" role="listbox" aria-label="Results">
        {hits.map((hit, index) => (
          <li key={hit.id} id={`hit-${index}`} role="option" aria-selected={index === at} onMouseMove={() => setAt(index)} onClick={() => open(hit)} ref={index === at ? (element) => element?.scrollIntoView({ block: 'nearest' }) : undefined}>
            <span className="what">{hit.what}</span><span className="wrap">{hit.title}</span><span className="faint">{hit.detail}</span>
          </li>
        ))}
        {!hits.length && <li role="option" aria-selected="false" aria-disabled="true"><span className="what" /><span>Nothing found.</span></li>}
      </ul>
    </dialog>
  );
}
