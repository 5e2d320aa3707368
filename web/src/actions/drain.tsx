// The dialog that drains a node: cordons it, then evicts its pods; a budget that refuses is asked again until it allows.
import { useRef, useState } from 'react';
import { ApiError, explain, write } from '../api/client';
import type { KubeObject } from '../api/objects';
import { useList } from '../api/use_list';
import { Button, Note, Tag } from '../ui/basics';
import { Dialog } from '../ui/dialog';
import type { DialogProps } from './table';
import { mergePatch } from './writes';
import { withFields } from '../lib/selector';

const RETRY = 5000;
const PATIENCE = 60;

type Progress = Record<string, string>;

const ownedBy = (pod: KubeObject, kind: string) => !!pod.metadata.ownerReferences?.some((owner) => owner.kind === kind);
const keyOf = (pod: KubeObject) => `${pod.metadata.namespace}/${pod.metadata.name}`;

/** Why a pod stays when its node is drained. */
export function staysBecause(pod: KubeObject): string | undefined {
  if (ownedBy(pod, 'DaemonSet')) return 'of a DaemonSet';
  if (pod.metadata.annotations?.['kubernetes.io/config.mirror']) return 'static';
  if (pod.status?.phase === 'Succeeded' || pod.status?.phase === 'Failed') return 'ended';
  return undefined;
}

async function evict(pod: KubeObject, say: (text: string) => void, stopped: () => boolean): Promise<void> {
  const { name, namespace } = pod.metadata;
  const body = { apiVersion: 'policy/v1', kind: 'Eviction', metadata: { name, namespace } };
  for (let tries = 0; tries < PATIENCE && !stopped(); tries += 1) {
    try {
      await write('POST', `/api/v1/namespaces/${namespace}/pods/${encodeURIComponent(name)}/eviction`, body);
      return say('evicted');
    } catch (error) {
      if (error instanceof ApiError && error.code === 404) return say('gone');
      if (!(error instanceof ApiError) || error.code !== 429) return say(explain(error));
      say(`a disruption budget holds it: ${error.message}`);
      await new Promise((resolve) => setTimeout(resolve, RETRY));
    }
  }
  return say('given up');
}

export default function DrainDialog({ resource, object, onClose }: DialogProps) {
  const list = useList(`/api/v1/pods?${withFields({ 'spec.nodeName': object.metadata.name })}`);
  const [progress, setProgress] = useState<Progress>({});
  const [phase, setPhase] = useState<'ready' | 'running' | 'done'>('ready');
  const stop = useRef(false);
  const pods = list.items;
  const leaving = pods.filter((pod) => !staysBecause(pod));
  const bare = leaving.filter((pod) => !pod.metadata.ownerReferences?.length);
  // Evicted pods leave the live list; what became of them stays to be read.
  const left = Object.keys(progress).filter((key) => key.includes('/') && !pods.some((pod) => keyOf(pod) === key));
  const run = async () => {
    setPhase('running');
    const say = (pod: KubeObject) => (text: string) => setProgress((old) => ({ ...old, [keyOf(pod)]: text }));
    try {
      if (!object.spec?.unschedulable) await mergePatch(resource, object, { spec: { unschedulable: true } });
      await Promise.all(leaving.map((pod) => evict(pod, say(pod), () => stop.current)));
    } catch (error) {
      setProgress((old) => ({ ...old, [object.metadata.name]: explain(error) }));
    }
    setPhase('done');
  };
  const close = () => {
    stop.current = true;
    onClose();
  };
  const footer = <><Button onClick={close}>{phase === 'running' ? 'Stop' : 'Close'}</Button>{phase !== 'done' && <Button tone="danger" reason={phase === 'running' ? 'Under way' : undefined} onClick={() => void run()}>Drain node</Button>}</>;
  return (
    <Dialog title={`Drain ${object.metadata.name}`} onClose={close} footer={footer} size="wide">
      <p>The node is cordoned, then {leaving.length} of its {pods.length} pods are evicted. Disruption budgets are kept.</p>
      {bare.length > 0 && <Note tone="warn">Nothing starts these anew elsewhere: {bare.map(keyOf).join(', ')}</Note>}
      {phase === 'done' && <Note tone="ok">Done.</Note>}
      <table className="plain"><tbody>{pods.map((pod) => <tr key={keyOf(pod)}><td>{keyOf(pod)}</td><td>{progress[keyOf(pod)] ?? (staysBecause(pod) ? <Tag>stays: {staysBecause(pod)}</Tag> : 'to be evicted')}</td></tr>)}{left.map((key) => <tr key={key}><td>{key}</td><td>{progress[key]}, no longer here</td></tr>)}</tbody></table>
      {progress[object.metadata.name] && <Note tone="bad">{progress[object.metadata.name]}</Note>}
    </Dialog>
  );
}
