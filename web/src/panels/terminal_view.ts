// xterm.js bound to a terminal of the API; loaded when a terminal is first opened.
import { FitAddon } from '@xterm/addon-fit';
import { Terminal as Xterm } from '@xterm/xterm';
import '@xterm/xterm/css/xterm.css';
import { openTerminal, type TerminalTarget } from '../api/exec';
import { cspNonce } from '../ui/nonce';

/** xterm makes style elements of its own and can't be given a nonce: each is given ours as it is made in its element. */
function withNonce<T>(make: () => T): T {
  const create = document.createElement;
  document.createElement = function (this: Document, name: string, options?: ElementCreationOptions) {
    const element = create.call(document, name, options);
    if (name === 'style') element.nonce = cspNonce();
    return element;
  } as typeof document.createElement;
  try {
    return make();
  } finally {
    document.createElement = create;
  }
}

export function showTerminal(parent: HTMLElement, target: TerminalTarget, onState: (text: string, failed: boolean) => void): () => void {
  const screen = new Xterm({ cursorBlink: true, fontSize: 13, fontFamily: 'ui-monospace, "DejaVu Sans Mono", monospace', screenReaderMode: true, theme: { background: '#10181c', foreground: '#e6eef1' } });
  const fit = new FitAddon();
  screen.loadAddon(fit);
  withNonce(() => screen.open(parent));
  fit.fit();
  const terminal = openTerminal(target, {
    output: (bytes) => screen.write(bytes),
    opened: () => {
      onState('Connected.', false);
      terminal.resize(screen.cols, screen.rows);
      screen.focus();
    },
    ended: onState,
  });
  screen.onData((text) => terminal.send(text));
  screen.onResize(({ cols, rows }) => terminal.resize(cols, rows));
  const observer = new ResizeObserver(() => fit.fit());
  observer.observe(parent);
  return () => {
    observer.disconnect();
    terminal.close();
    screen.dispose();
  };
}
