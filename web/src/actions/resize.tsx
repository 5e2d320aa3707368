// The dialog that changes the resources of a pod's containers while they run, and lets the server try it first.
import { useState } from 'react';
import { STRATEGIC_PATCH, write } from '../api/client';
import { objectPath } from '../api/discovery';
import { parseQuantity } from '../lib/quantity';
import { Button, ErrorNote, Note } from '../ui/basics';
import { Dialog } from '../ui/dialog';
import { useWrite } from './bar';
import type { DialogProps } from './table';

type Amounts = Record<string, string>;
interface Container {
  name: string;
  resources?: { requests?: Amounts; limits?: Amounts };
}

const KINDS = ['requests', 'limits'] as const;
const NAMES = ['cpu', 'memory'] as const;
const FIELDS = KINDS.flatMap((kind) => NAMES.map((name) => ({ kind, name, id: `${kind}.${name}`, label: `${name === 'cpu' ? 'CPU' : 'Memory'} ${kind === 'requests' ? 'request' : 'limit'}` })));

export default function ResizeDialog({ resource, object, onClose }: DialogProps) {
  const containers = object.spec.containers as Container[];
  const [name, setName] = useState(containers[0]?.name ?? '');
  const container = containers.find((entry) => entry.name === name);
  const [changed, setChanged] = useState<Amounts>({});
  const [tried, setTried] = useState<string>();
  const [refusal, setRefusal] = useState<Error>();
  const { error, busy, submit } = useWrite(onClose);
  const nowOf = ({ kind, name: what }: (typeof FIELDS)[number]) => container?.resources?.[kind]?.[what] ?? '';
  const edits = FIELDS.filter((field) => field.id in changed && changed[field.id]!.trim() !== nowOf(field));
  const wrong = edits.find((field) => !(parseQuantity(changed[field.id]) >= 0));
  const reason = busy ? 'Under way' : wrong ? `${wrong.label} is no quantity, such as 250m or 64Mi.` : edits.length ? undefined : 'Nothing is changed.';
  const ask = (dryRun: boolean) => {
    const amounts = (kind: string) => Object.fromEntries(edits.filter((field) => field.kind === kind).map((field) => [field.name, changed[field.id]!.trim()]));
    const resources = Object.fromEntries(KINDS.map((kind) => [kind, amounts(kind)]).filter(([, values]) => Object.keys(values!).length));
    const path = objectPath(resource, object.metadata.namespace, object.metadata.name);
    return write('PATCH', `${path}/resize${dryRun ? '?dryRun=All' : ''}`, { spec: { containers: [{ name, resources }] } }, STRATEGIC_PATCH);
  };
  const tryIt = async () => {
    setRefusal(undefined);
    setTried(undefined);
    try {
      await ask(true);
      setTried('The server would take it. Whether the node has room is told by the pod’s conditions afterwards.');
    } catch (problem) {
      setRefusal(problem as Error);
    }
  };
  const apply = () => void submit(async () => {
    await ask(false);
    return `Container ${name} of ${object.metadata.name} is being resized.`;
  });
  const edit = (id: string, value: string) => {
    setTried(undefined);
    setRefusal(undefined);
    setChanged((old) => ({ ...old, [id]: value }));
  };
  const footer = <><Button onClick={onClose}>Cancel</Button><Button reason={reason} onClick={() => void tryIt()}>Dry run</Button><Button tone="primary" reason={reason} onClick={apply}>Resize</Button></>;
  return (
    <Dialog title={`Resize ${object.metadata.name}`} onClose={onClose} footer={footer}>
      <label className="field"><span>Container</span><select value={name} onChange={(event) => { setName(event.target.value); setChanged({}); setTried(undefined); }}>{containers.map((entry) => <option key={entry.name}>{entry.name}</option>)}</select></label>
      {FIELDS.map((field) => <label className="field" key={field.id}><span>{field.label} (now {nowOf(field) || 'none'})</span><input value={changed[field.id] ?? nowOf(field)} onChange={(event) => edit(field.id, event.target.value)} /></label>)}
      {object.metadata.ownerReferences?.some((owner) => owner.controller) && <Note tone="warn">Only this pod is changed: what its controller makes next has the resources of the template.</Note>}
      {tried && <Note tone="ok">{tried}</Note>}
      {(refusal ?? error) && <ErrorNote error={refusal ?? error} />}
    </Dialog>
  );
}
