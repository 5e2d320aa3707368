// The list of keys.
import { GO_KEYS } from '../navigation';
import { Dialog } from '../ui/dialog';

const KEYS: [string, string][] = [
  ['/', 'search names, kinds, labels and actions (also Ctrl K)'],
  ['?', 'this list'],
  ['↑ ↓', 'move in a table; Page Up, Page Down, Home, End too'],
  ['Enter', 'open what is marked'],
  ['Esc', 'close a dialog'],
];

export function Help({ onClose, version }: { onClose(): void; version: string }) {
  const go = Object.entries(GO_KEYS).map(([key, entry]): [string, string] => [`g ${key}`, `go to ${entry.title}`]);
  return (
    <Dialog title="Keys" onClose={onClose}>
      <table className="plain"><tbody>{[...KEYS, ...go].map(([key, text]) => <tr key={key}><td><kbd>{key}</kbd></td><td>{text}</td></tr>)}</tbody></table>
      <p className="faint">The cluster speaks the Kubernetes API {version}.</p>
    </Dialog>
  );
}
