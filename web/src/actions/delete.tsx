// The dialog that deletes: what happens to dependents is the user's choice, and dear things ask for the name.
import { useState } from 'react';
import { Button, ErrorNote, Note } from '../ui/basics';
import { Dialog } from '../ui/dialog';
import { useWrite } from './bar';
import type { DialogProps } from './table';
import { remove, type Cascade } from './writes';

const CASCADES: [Cascade, string][] = [
  ['Background', 'Delete it now, its dependents right after (background)'],
  ['Foreground', 'Delete its dependents first, then it (foreground)'],
  ['Orphan', 'Delete it alone; its dependents stay (orphan)'],
];
/** Kinds whose deletion takes much with it. */
const DEAR = ['namespaces', 'nodes', 'persistentvolumes', 'persistentvolumeclaims', 'customresourcedefinitions'];

export default function DeleteDialog({ resource, object, onClose }: DialogProps) {
  const [cascade, setCascade] = useState<Cascade>('Background');
  const [force, setForce] = useState(false);
  const [typed, setTyped] = useState('');
  const { error, busy, submit } = useWrite(onClose);
  const { name, namespace, finalizers } = object.metadata;
  const dear = DEAR.includes(resource.resource);
  const reason = busy ? 'Under way' : dear && typed !== name ? 'Type the name first.' : undefined;
  const isPod = resource.resource === 'pods';
  const run = () => void submit(() => remove(resource, object, cascade, force ? 0 : undefined));
  const footer = <><Button onClick={onClose}>Cancel</Button><Button tone="danger" reason={reason} onClick={run}>Delete {resource.kind}</Button></>;
  return (
    <Dialog title={`Delete ${resource.kind} ${name}?`} onClose={onClose} footer={footer}>
      <p>{namespace ? `In namespace ${namespace}. ` : ''}This can’t be undone.</p>
      <fieldset className="field"><legend className="sr-only">Dependents</legend>
        {CASCADES.map(([value, text]) => <label key={value}><input type="radio" name="cascade" checked={cascade === value} onChange={() => setCascade(value)} />{text}</label>)}
      </fieldset>
      {isPod && <label><input type="checkbox" checked={force} onChange={(event) => setForce(event.target.checked)} />Do not wait for it to end (grace period 0)</label>}
      {finalizers?.length ? <Note tone="warn">Finalizers hold it until they are done: {finalizers.join(', ')}</Note> : null}
      {dear && <label className="field"><span>Type {name} to confirm</span><input value={typed} onChange={(event) => setTyped(event.target.value)} /></label>}
      {error && <ErrorNote error={error} />}
    </Dialog>
  );
}
