// exec and attach over a WebSocket with subprotocol v5.channel.k8s.io, or v4, which can't tell the end of input: the first
// byte of a message is its channel. A terminal shows what comes; `runCommand` collects it.
// A browser can't read why an upgrade was refused: the dashboard's server accepts then and closes with code 4000 and the
// reason. Where it does not, the same path is asked by plain HTTP for its Status.
import { formatBytes } from '../lib/quantity';
import { ApiError, errorOf } from './client';

const UPGRADE_REFUSED = 4000;
const PROTOCOLS = ['v5.channel.k8s.io', 'v4.channel.k8s.io'] as const;
const PIECE = 32 * 1024;
/** What is kept of the error output of a command, in characters. */
const MOST_SAID = 4096;
const CHANNEL = { stdin: 0, stdout: 1, stderr: 2, error: 3, resize: 4, close: 255 };

export interface Terminal {
  send(input: string | Uint8Array): void;
  /** Tells the program that no more input comes; false where the protocol has no way to. */
  endInput(): boolean;
  resize(columns: number, rows: number): void;
  close(): void;
}
export interface TerminalSink {
  output(bytes: Uint8Array, error: boolean): void;
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
  /** False for what reads no input. */
  stdin?: boolean;
}

interface EndStatus {
  status?: string;
  message?: string;
  reason?: string;
  details?: { causes?: { reason?: string; message?: string }[] };
}

/** How a program ended, in words: its exit code where the server tells one. */
export function endOf(status: EndStatus): { message: string; failed: boolean } {
  if (status.status === 'Success') return { message: 'The program ended with exit code 0.', failed: false };
  const code = status.details?.causes?.find((cause) => cause.reason === 'ExitCode')?.message;
  if (status.reason === 'NonZeroExitCode' && code) return { message: `The program ended with exit code ${code}.`, failed: true };
  return { message: status.message || 'The program failed.', failed: true };
}

function pathOf({ namespace, pod, container, mode, command, tty, stdin = true }: TerminalTarget): string {
  const query = new URLSearchParams({ container, stdin: String(stdin), stdout: 'true', stderr: String(!tty), tty: String(tty) });
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
  const socket = new WebSocket(`${scheme}://${location.host}${path}`, [...PROTOCOLS]);
  socket.binaryType = 'arraybuffer';
  let opened = false;
  let told = false;
  const end = (message: string, failed: boolean) => {
    if (told) return;
    told = true;
    sink.ended(message, failed);
  };
  const frame = (channel: number, bytes: Uint8Array) => {
    if (socket.readyState !== WebSocket.OPEN) return;
    const message = new Uint8Array(bytes.length + 1);
    message[0] = channel;
    message.set(bytes, 1);
    socket.send(message);
  };
  const encode = (text: string) => new TextEncoder().encode(text);
  socket.onopen = () => {
    opened = true;
    sink.opened();
  };
  socket.onmessage = (event) => {
    const bytes = new Uint8Array(event.data as ArrayBuffer);
    const body = bytes.subarray(1);
    if (bytes[0] === CHANNEL.stdout || bytes[0] === CHANNEL.stderr) {
      // A channel begins with an empty message.
      return body.length ? sink.output(body, bytes[0] === CHANNEL.stderr) : undefined;
    }
    if (bytes[0] !== CHANNEL.error || !body.length) return undefined;
    const { message, failed } = endOf(JSON.parse(new TextDecoder().decode(body)) as EndStatus);
    return end(message, failed);
  };
  socket.onclose = (event) => {
    if (event.code === UPGRADE_REFUSED) return end(event.reason || 'The server refused.', true);
    if (opened) return end('The connection was closed.', true);
    void whyRefused(path).then((message) => end(message, true));
  };
  return {
    send: (input) => {
      const bytes = typeof input === 'string' ? encode(input) : input;
      for (let at = 0; at < bytes.length; at += PIECE) frame(CHANNEL.stdin, bytes.subarray(at, at + PIECE));
    },
    endInput: () => {
      if (socket.protocol !== PROTOCOLS[0]) return false;
      frame(CHANNEL.close, Uint8Array.of(CHANNEL.stdin));
      return true;
    },
    resize: (columns, rows) => frame(CHANNEL.resize, encode(JSON.stringify({ Width: columns, Height: rows }))),
    close: () => {
      told = true;
      socket.close();
    },
  };
}

export interface CommandOptions {
  input?: Uint8Array;
  /** The most output that is taken, in bytes. */
  most: number;
  signal?: AbortSignal;
}

function join(pieces: Uint8Array[], length: number): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(length);
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}

/** Runs a program to its end and answers its output; fails with what it said on its error output. */
export function runCommand(target: Omit<TerminalTarget, 'mode' | 'tty' | 'stdin'>, { input, most, signal }: CommandOptions): Promise<Uint8Array<ArrayBuffer>> {
  return new Promise((resolve, reject) => {
    const pieces: Uint8Array[] = [];
    let length = 0;
    let said = '';
    const fail = (message: string) => {
      terminal.close();
      reject(new Error(message));
    };
    const terminal = openTerminal({ ...target, mode: 'exec', tty: false, stdin: !!input }, {
      opened: () => {
        if (!input) return;
        terminal.send(input);
        if (!terminal.endInput()) fail('The server speaks an older protocol that can’t tell the end of a file: use kubectl cp.');
      },
      output: (bytes, error) => {
        if (error) {
          said = (said + new TextDecoder().decode(bytes)).slice(-MOST_SAID);
          return;
        }
        length += bytes.length;
        if (length > most) return fail(`It is more than ${formatBytes(most)}: use kubectl cp.`);
        pieces.push(bytes);
      },
      ended: (message, failed) => {
        terminal.close();
        if (failed) reject(new Error(said.trim() || message));
        else resolve(join(pieces, length));
      },
    });
    signal?.addEventListener('abort', () => fail('It was given up.'));
  });
}
