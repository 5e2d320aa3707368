// Form fields of the create page: text with a problem below it, and lists of name-value pairs.
import type { ReactNode } from 'react';
import { Button } from '../ui/basics';

export function Field({ label, hint, problem, children }: { label: string; hint?: string; problem?: string; children: ReactNode }) {
  // Beside the label, not in it: a field keeps its name when something is wrong with it.
  return <div className="field"><label className="field"><span>{label}</span>{children}</label>{problem ? <small role="alert">{problem}</small> : hint ? <small>{hint}</small> : null}</div>;
}

export type Pair = [name: string, value: string];

export function Pairs({ title, pairs, onChange, long }: { title: string; pairs: Pair[]; onChange(pairs: Pair[]): void; long?: boolean }) {
  const set = (index: number, pair: Pair) => onChange(pairs.map((old, at) => (at === index ? pair : old)));
  return (
    <fieldset className="field"><legend>{title}</legend>
      {pairs.map(([name, value], index) => (
        <div className="inline" key={index}>
          <input aria-label={`${title}: name ${index + 1}`} placeholder="name" value={name} onChange={(event) => set(index, [event.target.value, value])} />
          {long ? <textarea className="grow" rows={3} aria-label={`${title}: value ${index + 1}`} value={value} onChange={(event) => set(index, [name, event.target.value])} /> : <input className="grow" aria-label={`${title}: value ${index + 1}`} placeholder="value" value={value} onChange={(event) => set(index, [name, event.target.value])} />}
          <Button aria-label={`Remove ${name || 'entry'}`} onClick={() => onChange(pairs.filter((_, at) => at !== index))}>Remove</Button>
        </div>
      ))}
      <div><Button onClick={() => onChange([...pairs, ['', '']])}>Add</Button></div>
    </fieldset>
  );
}

export const filled = (pairs: Pair[]): Pair[] => pairs.filter(([name]) => name);
