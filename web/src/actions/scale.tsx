// The dialog that sets the number of replicas.
import { useState } from 'react';
import { Button, ErrorNote, Note } from '../ui/basics';
import { Dialog } from '../ui/dialog';
import { useList } from '../api/use_list';
import { useWrite } from './bar';
import type { DialogProps } from './table';
import { scale } from './writes';

export default function ScaleDialog({ resource, object, onClose }: DialogProps) {
  const current = Number(object.spec?.replicas ?? 1);
  const [text, setText] = useState(String(current));
  const { error, busy, submit } = useWrite(onClose);
  const autoscalers = useList(`/apis/autoscaling/v2/namespaces/${object.metadata.namespace}/horizontalpodautoscalers`);
  const autoscaler = autoscalers.items.find(({ spec }) => spec.scaleTargetRef?.kind === resource.kind && spec.scaleTargetRef?.name === object.metadata.name);
  const owner = object.metadata.ownerReferences?.find((entry) => entry.controller);
  const replicas = Number(text);
  const wrong = /^\d+$/.test(text) ? undefined : 'Enter a whole number, 0 or more.';
  const apply = () => void submit(() => scale(resource, object, replicas));
  const footer = <><Button onClick={onClose}>Cancel</Button><Button tone="primary" reason={busy ? 'Under way' : wrong} onClick={apply}>Scale to {wrong ? '…' : replicas}</Button></>;
  return (
    <Dialog title={`Scale ${object.metadata.name}`} onClose={onClose} footer={footer}>
      <label className="field"><span>Replicas (now {current})</span><input autoFocus type="number" min={0} value={text} onChange={(event) => setText(event.target.value)} onKeyDown={(event) => event.key === 'Enter' && !wrong && apply()} /></label>
      {autoscaler && <Note tone="warn">The autoscaler {autoscaler.metadata.name} sets this number too and will change it back.</Note>}
      {owner && <Note tone="warn">{owner.kind} {owner.name} owns this {resource.kind} and will change the number back.</Note>}
      {error && <ErrorNote error={error} />}
    </Dialog>
  );
}
