// exec and attach over a WebSocket with subprotocol v5.channel.k8s.io: the first byte of a message is its channel.
// A browser can't read why an upgrade was refused: the dashboard's server accepts then and closes with code 4000 and the
// reason. Where it does not, the same path is asked by plain HTTP for its Status.
import { ApiError, errorOf } from './client';

const UPGRADE_REFUSED = 4000;
const CHANNEL = { stdin: 0, stdout: 1, stderr: 2, error: 3, resize: 4, close: 255 };

export interface Terminal {
  send(text: string): void;
  resize(columns: number, rows: number): void;
  close(): void;
}
export interface TerminalSink {
  output(bytes: Uint8Array): void;
  opened(): void;
  ended(message: string, failed: boolean): void;
}
export interface TerminalTarget {
  namespace: string;
  pod: string;
  container: string;
  mode: 'exec' | 'attach';
  command: string[];
  tty: boolean;
}

function pathOf({ namespace, pod, container, mode, command, tty }: TerminalTarget): string {
  const query = new URLSearchParams({ container, stdin: 'true', stdout: 'true', stderr: String(!tty), tty: String(tty) });
  if (mode === 'exec') for (const word of command) query.append('command', word);
  return `/kube/api/v1/namespaces/${encodeURIComponent(namespace)}/pods/${encodeURIComponent(pod)}/${mode}?${query}`;
}

async function whyRefused(path: string): Promise<string> {
  try {
    const response = await fetch(path, { credentials: 'same-origin' });
    const body: unknown = await response.json().catch(() => undefined);
    return errorOf(response.status, body, `refused with status ${response.status}`).message;
  } catch (error) {
    return error instanceof ApiError ? error.message : 'the server does not answer';
  }
}

export function openTerminal(target: TerminalTarget, sink: TerminalSink): Terminal {
  const path = pathOf(target);
  const scheme = location.protocol === 'https:' ? 'wss' : 'ws';
  const socket = new WebSocket(`${scheme}://${location.host}${path}`, ['v5.channel.k8s.io']);
  socket.binaryType = 'arraybuffer';
  let opened = false;
  let told = false;
  const end = (message: string, failed: boolean) => {
    if (told) return;
    told = true;
    sink.ended(message, failed);
  };
  const frame = (channel: number, text: string) => {
    if (socket.readyState !== WebSocket.OPEN) return;
    const bytes = new TextEncoder().encode(text);
    const message = new Uint8Array(bytes.length + 1);
    message[0] = channel;
    message.set(bytes, 1);
    socket.send(message);
  };
  socket.onopen = () => {
    opened = true;
    sink.opened();
  };
  socket.onmessage = (event) => {
    const bytes = new Uint8Array(event.data as ArrayBuffer);
    const body = bytes.subarray(1);
    if (bytes[0] === CHANNEL.stdout || bytes[0] === CHANNEL.stderr) return sink.output(body);
    if (bytes[0] !== CHANNEL.error) return undefined;
    const status = JSON.parse(new TextDecoder().decode(body)) as { status?: string; message?: string };
    return end(status.status === 'Success' ? 'The program ended.' : (status.message ?? 'The program failed.'), status.status !== 'Success');
  };
  socket.onclose = (event) => {
    if (event.code === UPGRADE_REFUSED) return end(event.reason || 'The server refused.', true);
    if (opened) return end('The connection was closed.', true);
    void whyRefused(path).then((message) => end(message, true));
  };
  return {
    send: (text) => frame(CHANNEL.stdin, text),
    resize: (columns, rows) => frame(CHANNEL.resize, JSON.stringify({ Width: columns, Height: rows })),
    close: () => {
      told = true;
      socket.close();
    },
  };
}
