// The map of a namespace or of all: what routes to what, which policies hold where, and how much is flowing.
import { useMemo } from 'react';
import { hasGroup, useCatalogue } from '../api/discovery';
import { useFlows } from '../api/metrics';
import { useList } from '../api/use_list';
import { healthOf, type Level } from '../kinds/health';
import { listLink, objectLink } from '../links';
import { layoutMap, NODE, type MapEdge, type MapNode } from '../lib/map_layout';
import { useNamespace } from '../namespace';
import { navigate } from '../router';
import { Empty, ErrorNote, Note, Spinner } from '../ui/basics';

const TITLES = { ingress: 'Ingresses', service: 'Services', policy: 'Policies', pod: 'Pods', volume: 'Volumes' };
const WORST: Level[] = ['bad', 'warn', 'busy', 'ok', 'idle'];
const EDGES: Record<MapEdge['kind'], string> = { route: '', select: '', mount: '', policy: 'edge-policy', flow: 'edge-flow', denied: 'edge-denied' };
const MOST_PODS = 3000;

function levelOf(node: MapNode): Level | undefined {
  if (node.column !== 'pod') return undefined;
  const levels = new Set(node.objects.map((object) => healthOf(object, 'Pod')!.level));
  return WORST.find((level) => levels.has(level));
}

function NodeBox({ node }: { node: MapNode }) {
  const to = node.id.startsWith('owner/') ? objectLink(node.group, node.resource, node.namespace, node.name) : objectLink(node.group, node.resource, node.namespace, node.name);
  const level = levelOf(node);
  const short = (text: string, length: number) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);
  return (
    <a href={to} onClick={(event) => { if (event.ctrlKey || event.metaKey) return; event.preventDefault(); navigate(to); }} aria-label={`${node.resource} ${node.name} ${node.detail}`}>
      <title>{`${node.namespace}/${node.name}`}</title>
      <rect className="map-node" x={node.x} y={node.y} width={NODE.width} height={NODE.height} rx={6} />
      {level && <circle className={`map-${level}`} cx={node.x + 14} cy={node.y + 15} r={5} />}
      <text x={node.x + (level ? 26 : 12)} y={node.y + 19}>{short(node.title, level ? 23 : 25)}</text>
      <text className="map-sub" x={node.x + 12} y={node.y + 35}>{short(node.detail, 28)}</text>
    </a>
  );
}

function Edge({ edge, nodes }: { edge: MapEdge; nodes: Map<string, MapNode> }) {
  const from = nodes.get(edge.from)!;
  const to = nodes.get(edge.to)!;
  const same = from.x === to.x;
  const [x1, y1, y2] = [from.x + NODE.width, from.y + NODE.height / 2, to.y + NODE.height / 2];
  const x2 = same ? to.x + NODE.width : to.x;
  const bend = same ? 46 : Math.max(30, (x2 - x1) / 2);
  const d = `M${x1} ${y1} C${x1 + bend} ${y1} ${same ? x2 + bend : x2 - bend} ${y2} ${x2} ${y2}`;
  return <g><path className={EDGES[edge.kind]} d={d} />{edge.label && <text className="map-sub" x={(x1 + x2) / 2 + (same ? 36 : 0)} y={(y1 + y2) / 2 - 4} textAnchor="middle">{edge.label}</text>}</g>;
}

export default function MapPage() {
  const namespace = useNamespace();
  const { all } = useCatalogue();
  const scope = namespace ? `/namespaces/${namespace}` : '';
  const ingresses = useList(`/apis/networking.k8s.io/v1${scope}/ingresses`);
  const services = useList(`/api/v1${scope}/services`);
  const policies = useList(`/apis/networking.k8s.io/v1${scope}/networkpolicies`);
  const pods = useList(`/api/v1${scope}/pods`);
  const served = hasGroup(all, 'node.windlass.dev');
  const flows = useFlows(served, namespace);
  const map = useMemo(() => layoutMap({ ingresses: ingresses.items, services: services.items, policies: policies.items, pods: pods.items.slice(0, MOST_PODS), flows: flows.value ?? [] }), [ingresses.items, services.items, policies.items, pods.items, flows.value]);
  const byId = useMemo(() => new Map(map.nodes.map((node) => [node.id, node])), [map]);
  const heads = [...new Map(map.nodes.map((node) => [node.column, node.x]))];
  const error = [ingresses, services, policies, pods].find((list) => list.error)?.error;
  return (
    <div className="page page-full">
      <div className="page-head"><h1>Map{namespace ? ` of ${namespace}` : ''}</h1><span className="grow" /><span className="faint">{served ? 'Numbers on lines are connections; red dashes were denied.' : 'Lines show what selects, routes and mounts.'}</span></div>
      {!served && <Note>This server does not serve node.windlass.dev, so traffic is not known here.</Note>}
      {flows.error && <ErrorNote what="Traffic could not be read." error={flows.error} />}
      {error && <ErrorNote what="Not everything could be read." error={error} />}
      {pods.items.length > MOST_PODS && <Note tone="warn">Drawn from the first {MOST_PODS} of {pods.items.length} pods; choose a namespace.</Note>}
      {pods.phase === 'loading' && !map.nodes.length ? <Spinner /> : !map.nodes.length ? <Empty title="There is nothing to draw."><a href={listLink('', 'pods')}>Pods</a></Empty> : (
        <div className="map" role="region" aria-label="Map" tabIndex={0}>
          <svg width={map.width} height={map.height} role="group" aria-label={`${map.nodes.length} objects, ${map.edges.length} links`}>
            {heads.map(([column, x]) => <text key={column} className="map-column" x={x} y={28}>{TITLES[column]}</text>)}
            {map.edges.map((edge) => <Edge key={`${edge.from} ${edge.to} ${edge.kind}`} edge={edge} nodes={byId} />)}
            {map.nodes.map((node) => <NodeBox key={node.id} node={node} />)}
          </svg>
        </div>
      )}
    </div>
  );
}
