// The buttons of an object's page, made from the table of actions, and the dialog of the one that was pressed.
import { Suspense, useEffect, useState } from 'react';
import type { Resource } from '../api/discovery';
import { explain } from '../api/client';
import type { KubeObject } from '../api/objects';
import { useAccess } from '../api/rights';
import { setQuery, useLocation } from '../router';
import { Button, ErrorNote } from '../ui/basics';
import { Dialog } from '../ui/dialog';
import { toast } from '../ui/toasts';
import { actionsFor, questionOf, type Action, type DialogProps } from './table';

function ActionButton({ action, resource, object, onPress }: { action: Action; resource: Resource; object: KubeObject; onPress(): void }) {
  const access = useAccess(questionOf(action, resource, object));
  const reason = access.allowed ? undefined : access.reason || 'Asking whether you may';
  return <Button tone={action.tone} reason={reason} data-action={action.id} onClick={onPress}>{action.label}</Button>;
}

function Confirm({ action, resource, object, onClose }: DialogProps & { action: Action }) {
  const [error, setError] = useState<Error>();
  const [busy, setBusy] = useState(false);
  const run = async () => {
    setBusy(true);
    try {
      toast(await action.run!(resource, object));
      onClose();
    } catch (problem) {
      setError(problem as Error);
      setBusy(false);
    }
  };
  const footer = <><Button onClick={onClose}>Cancel</Button><Button tone="primary" autoFocus reason={busy ? 'Under way' : undefined} onClick={() => void run()}>{action.label}</Button></>;
  return <Dialog title={`${action.label}: ${object.metadata.name}`} onClose={onClose} footer={footer}><p>{action.confirm?.(object)}</p>{error && <ErrorNote error={error} />}</Dialog>;
}

/** Runs a write of a dialog: closes with a message, or keeps the dialog open with the error. */
export function useWrite(onClose: () => void) {
  const [error, setError] = useState<Error>();
  const [busy, setBusy] = useState(false);
  const submit = async (ask: () => Promise<string>) => {
    setBusy(true);
    setError(undefined);
    try {
      toast(await ask());
      onClose();
    } catch (problem) {
      setError(problem as Error);
      toast(explain(problem), 'bad');
      setBusy(false);
    }
  };
  return { error, busy, submit };
}

export function ActionBar({ resource, object }: { resource: Resource; object: KubeObject }) {
  const { query } = useLocation();
  const [open, setOpen] = useState<string>();
  const actions = actionsFor(resource).filter((action) => !action.unfit?.(object));
  const asked = query.get('action');
  useEffect(() => {
    if (!asked) return;
    setOpen(asked);
    setQuery({ action: undefined });
  }, [asked]);
  const action = actionsFor(resource).find((entry) => entry.id === open);
  const close = () => setOpen(undefined);
  return (
    <div className="inline" role="group" aria-label="Actions">
      {actions.map((entry) => <ActionButton key={entry.id} action={entry} resource={resource} object={object} onPress={() => setOpen(entry.id)} />)}
      {action?.dialog && <Suspense fallback={null}><action.dialog resource={resource} object={object} onClose={close} /></Suspense>}
      {action?.run && <Confirm action={action} resource={resource} object={object} onClose={close} />}
    </div>
  );
}
