// The map of a namespace or of all: what routes to what, who may reach whom by policy, and how much is flowing.
import { useMemo, useState } from 'react';
import { hasGroup, useCatalogue } from '../api/discovery';
import { useFlows } from '../api/metrics';
import { useList } from '../api/use_list';
import { healthOf, type Level } from '../kinds/health';
import { listLink, objectLink } from '../links';
import { layoutMap, NODE, type Column, type MapEdge, type MapLayout, type MapNode } from '../lib/map_layout';
import { useNamespace } from '../namespace';
import { navigate, setQuery, useLocation } from '../router';
import { Empty, ErrorNote, Note, Spinner } from '../ui/basics';

const TITLES: Record<Column, string> = { outside: 'Elsewhere', ingress: 'Ingresses', service: 'Services', policy: 'Policies', pod: 'Pods', volume: 'Volumes' };
const WORST: Level[] = ['bad', 'warn', 'busy', 'ok', 'idle'];
const MOST_PODS = 3000;
/** More lines of what policies forbid than these hide everything else: then only those of the node under the pointer are drawn. */
const MOST_FORBIDDEN = 60;

/** What can be left out of the drawing, with the kinds of lines that it is about. */
const LAYERS: [id: string, title: string, kinds: MapEdge['kind'][]][] = [['links', 'Routes and mounts', ['route', 'select', 'mount', 'policy']], ['traffic', 'Traffic', ['flow', 'denied']], ['allowed', 'Allowed by policy', ['allowed']], ['forbidden', 'Denied by policy', ['forbidden']]];

function levelOf(node: MapNode): Level | undefined {
  if (node.column !== 'pod') return undefined;
  const levels = new Set(node.objects.map((object) => healthOf(object, 'Pod')!.level));
  return WORST.find((level) => levels.has(level));
}

function NodeBox({ node }: { node: MapNode }) {
  const level = levelOf(node);
  const short = (text: string, length: number) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);
  const box = (
    <>
      <title>{node.namespace ? `${node.namespace}/${node.name}` : `${node.title} ${node.detail}`}</title>
      <rect className={node.resource ? 'map-node' : 'map-node map-outside'} x={node.x} y={node.y} width={NODE.width} height={NODE.height} rx={6} />
      {level && <circle className={`map-${level}`} cx={node.x + 14} cy={node.y + 15} r={5} />}
      <text x={node.x + (level ? 26 : 12)} y={node.y + 19}>{short(node.title, level ? 23 : 25)}</text>
      <text className="map-sub" x={node.x + 12} y={node.y + 35}>{short(node.detail, 30)}</text>
    </>
  );
  if (!node.resource) return <g>{box}</g>;
  const to = objectLink(node.group, node.resource, node.namespace, node.name);
  return <a href={to} onClick={(event) => { if (event.ctrlKey || event.metaKey) return; event.preventDefault(); navigate(to); }} aria-label={`${node.resource} ${node.name} ${node.detail}`}>{box}</a>;
}

function labelOf(edge: MapEdge): string {
  const rate = edge.rate ? `, ${edge.rate < 10 ? edge.rate.toFixed(1) : Math.round(edge.rate)}/s` : '';
  if (edge.kind === 'denied') return `${edge.count} denied${rate}`;
  if (edge.kind === 'flow') return `${edge.count}${rate}`;
  return edge.kind === 'allowed' && edge.ports ? `:${edge.ports}` : '';
}

const WORDS: Partial<Record<MapEdge['kind'], string>> = { allowed: 'may reach', forbidden: 'may not reach', flow: 'connections to', denied: 'connections refused to' };

function titleOf(edge: MapEdge, from: MapNode, to: MapNode): string {
  return `${from.title} ${WORDS[edge.kind] ?? '→'} ${to.title}${edge.ports ? `, ports ${edge.ports}` : ''}${edge.by ? `, by ${edge.by}` : ''}`;
}

/** Where lines of a kind begin and end at a node: those of different kinds between the same two must not lie on each other. */
const OFFSET: Record<MapEdge['kind'], number> = { route: 0, select: 0, mount: 0, policy: -6, flow: 6, denied: 12, allowed: -12, forbidden: -16 };

function shapeOf(from: MapNode, to: MapNode, kind: MapEdge['kind']) {
  const offset = OFFSET[kind];
  const [y1, y2] = [from.y + NODE.height / 2 + offset, to.y + NODE.height / 2 + offset];
  if (from.x === to.x) {
    // Beside the column, the farther apart the wider.
    const x = from.x + NODE.width;
    const bend = Math.min(64, 24 + Math.abs(to.y - from.y) / 8) + offset;
    return { d: `M${x} ${y1} C${x + bend} ${y1} ${x + bend} ${y2} ${x} ${y2}`, x: x + bend * 0.75, y: (y1 + y2) / 2 };
  }
  const forward = from.x < to.x;
  const [x1, x2] = forward ? [from.x + NODE.width, to.x] : [from.x, to.x + NODE.width];
  const bend = (forward ? 1 : -1) * Math.max(30, Math.abs(x2 - x1) / 2);
  return { d: `M${x1} ${y1} C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`, x: (x1 + x2) / 2, y: (y1 + y2) / 2 - 4 };
}

const ARROWS: MapEdge['kind'][] = ['flow', 'denied', 'allowed', 'forbidden'];

function Edge({ edge, nodes, dim }: { edge: MapEdge; nodes: Map<string, MapNode>; dim: boolean }) {
  const from = nodes.get(edge.from)!;
  const to = nodes.get(edge.to)!;
  const { d, x, y } = shapeOf(from, to, edge.kind);
  const label = labelOf(edge);
  return (
    <g className={dim ? 'edge-dim' : undefined}>
      <title>{titleOf(edge, from, to)}</title>
      <path className={`edge edge-${edge.kind}`} d={d} markerEnd={ARROWS.includes(edge.kind) ? `url(#arrow-${edge.kind})` : undefined} />
      {label && <text className={`map-label label-${edge.kind}`} x={x} y={y} textAnchor="middle">{label}</text>}
    </g>
  );
}

const Arrow = ({ kind }: { kind: MapEdge['kind'] }) => <marker id={`arrow-${kind}`} viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" markerUnits="userSpaceOnUse" orient="auto"><path className={`arrow-${kind}`} d="M0 0 L8 4 L0 8 Z" /></marker>;

function Drawing({ map, hidden }: { map: MapLayout; hidden: Set<MapEdge['kind']> }) {
  const [over, setOver] = useState<string>();
  const byId = useMemo(() => new Map(map.nodes.map((node) => [node.id, node])), [map]);
  const heads = [...new Map(map.nodes.map((node) => [node.column, node.x]))];
  const touches = (edge: MapEdge) => edge.from === over || edge.to === over;
  const crowded = map.edges.filter((edge) => edge.kind === 'forbidden').length > MOST_FORBIDDEN;
  const drawn = map.edges.filter((edge) => !hidden.has(edge.kind) && (!crowded || edge.kind !== 'forbidden' || touches(edge)));
  const widest = map.nodes.some((node) => node.column === 'volume') ? map.width : map.width + 80;
  return (
    <>
      {crowded && !hidden.has('forbidden') && <Note>Policies deny more than can be drawn: point at a pod, or go to it with the Tab key, to see what it may not reach.</Note>}
      {map.policiesLeftOut && <Note tone="warn">There are too many pods to draw who may reach whom; choose a namespace.</Note>}
      <div className="map" role="region" aria-label="Map" tabIndex={0}>
        <svg width={widest} height={map.height} role="group" aria-label={`${map.nodes.length} objects, ${map.edges.length} links`}>
          <defs>{ARROWS.map((kind) => <Arrow key={kind} kind={kind} />)}</defs>
          {heads.map(([column, x]) => <text key={column} className="map-column" x={x} y={28}>{TITLES[column]}</text>)}
          {drawn.map((edge) => <Edge key={`${edge.from} ${edge.to} ${edge.kind}`} edge={edge} nodes={byId} dim={!!over && !touches(edge)} />)}
          {map.nodes.map((node) => <g key={node.id} onPointerEnter={() => setOver(node.id)} onPointerLeave={() => setOver(undefined)} onFocus={() => setOver(node.id)} onBlur={() => setOver(undefined)}><NodeBox node={node} /></g>)}
        </svg>
      </div>
    </>
  );
}

function Layers({ hidden }: { hidden: string[] }) {
  const toggle = (id: string) => setQuery({ hide: (hidden.includes(id) ? hidden.filter((entry) => entry !== id) : [...hidden, id]).join(',') });
  return (
    <div className="inline" role="group" aria-label="What is drawn">
      {LAYERS.map(([id, title, kinds]) => (
        <label key={id}><input type="checkbox" checked={!hidden.includes(id)} onChange={() => toggle(id)} /><svg className="map-key" width="26" height="10" aria-hidden="true"><path className={`edge edge-${kinds[0]}`} d="M1 5H25" /></svg>{title}</label>
      ))}
    </div>
  );
}

export default function MapPage() {
  const namespace = useNamespace();
  const { all } = useCatalogue();
  const { query } = useLocation();
  const scope = namespace ? `/namespaces/${namespace}` : '';
  const ingresses = useList(`/apis/networking.k8s.io/v1${scope}/ingresses`);
  const services = useList(`/api/v1${scope}/services`);
  const policies = useList(`/apis/networking.k8s.io/v1${scope}/networkpolicies`);
  const namespaces = useList('/api/v1/namespaces');
  const pods = useList(`/api/v1${scope}/pods`);
  const served = hasGroup(all, 'node.windlass.dev');
  const flows = useFlows(served, namespace);
  const map = useMemo(() => layoutMap({ ingresses: ingresses.items, services: services.items, policies: policies.items, namespaces: namespaces.items, pods: pods.items.slice(0, MOST_PODS), flows: flows.value ?? [] }), [ingresses.items, services.items, policies.items, namespaces.items, pods.items, flows.value]);
  const left = (query.get('hide') ?? '').split(',').filter(Boolean);
  const hidden = new Set(LAYERS.filter(([id]) => left.includes(id)).flatMap(([, , kinds]) => kinds));
  const error = [ingresses, services, policies, pods].find((list) => list.error)?.error;
  return (
    <div className="page page-full">
      <div className="page-head"><h1>Map{namespace ? ` of ${namespace}` : ''}</h1><span className="grow" /><Layers hidden={left} /></div>
      <p className="faint">{served ? 'Numbers on lines are connections, and how many each second now; dashes in red were refused.' : 'This server does not serve node.windlass.dev, so traffic is not known here.'}</p>
      {flows.error && <ErrorNote what="Traffic could not be read." error={flows.error} />}
      {error && <ErrorNote what="Not everything could be read." error={error} />}
      {pods.items.length > MOST_PODS && <Note tone="warn">Drawn from the first {MOST_PODS} of {pods.items.length} pods; choose a namespace.</Note>}
      {pods.phase === 'loading' && !map.nodes.length ? <Spinner /> : !map.nodes.length ? <Empty title="There is nothing to draw."><a href={listLink('', 'pods')}>Pods</a></Empty> : <Drawing map={map} hidden={hidden} />}
    </div>
  );
}
